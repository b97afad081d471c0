#!/usr/bin/env python3
"""How many pictures a second one core reads, decodes, crops, flips and resizes for training: rn50 beside torchvision's
ImageFolder + DataLoader and NVIDIA DALI's CPU pipeline.

RandomResizedCrop (area 0.08 to 1) to SIZE and a horizontal flip, shuffled, from the same files, no cache of decoded
pictures. Everything is pinned to one core (torchvision and DALI with as many of their own threads or workers as are best
there: none and one). The programs take turns; a figure is the median over the turns. Torchvision and DALI also
normalise, because their nets want that from the loader; rn50's net takes bytes and normalises within its first layer.

    tools/bench_loader.py DATA [--size 224] [--core 1] [--turns 3] [--seconds 10] [--rn50 ./rn50] [--json]

DATA: a folder with a folder for each class, as torchvision's ImageFolder takes it; some thousand pictures, which fit into
the page cache (they are read once before the clock runs). Needs torch, torchvision and nvidia-dali for the rivals; what is
missing is left out and said.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

BATCH, WARM_UP = 64, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def batches_per_second(batches, seconds):
    """Runs an endless iterator for some seconds after its first batches; pictures a second."""
    for _ in range(WARM_UP):
        next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(batches)
        count += 1
    return count * BATCH / (time.perf_counter() - start)


def torchvision(args):
    import torch
    from torchvision import datasets, transforms

    torch.set_num_threads(1)
    transform = transforms.Compose([
        transforms.RandomResizedCrop(args.size, scale=(0.08, 1)), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize(MEAN, STD)])
    loader = torch.utils.data.DataLoader(datasets.ImageFolder(args.data, transform), BATCH, shuffle=True, num_workers=0,
                                         drop_last=True)

    def endless():
        while True:
            yield from loader
    return batches_per_second(endless(), args.seconds)


def dali(args):
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH, num_threads=1, device_id=None, prefetch_queue_depth=2)
    def pipeline():
        files, labels = fn.readers.file(file_root=args.data, random_shuffle=True)
        pictures = fn.decoders.image_random_crop(files, device="cpu", output_type=types.RGB, random_area=(0.08, 1))
        pictures = fn.resize(pictures, resize_x=args.size, resize_y=args.size, interp_type=types.INTERP_TRIANGULAR)
        pictures = fn.crop_mirror_normalize(pictures, dtype=types.FLOAT, output_layout="CHW", mirror=fn.random.coin_flip(),
                                            mean=[255 * m for m in MEAN], std=[255 * s for s in STD])
        return pictures, labels

    pipe = pipeline()
    pipe.build()

    def endless():
        while True:
            yield pipe.run()
    return batches_per_second(endless(), args.seconds)


def rn50(args):
    def run(calls):
        said = subprocess.run([args.rn50, "bench", "loader", args.data, "--val-split", "0.01", "--device", "cpu", "--workers",
                               "1", "--threads", "1", "--batch-size", str(BATCH), "--image-size", str(args.size), "--max-steps",
                               str(calls), "--json"], check=True, capture_output=True, text=True)
        return json.loads(said.stdout)["images_per_s"]
    # So many batches as fill the time.
    return run(max(4, int(run(8) * args.seconds / BATCH)))


PROGRAMS = {"torchvision": torchvision, "DALI (CPU)": dali, "rn50": rn50}


def measure(name, args):
    """In a process of its own, so that no library's threads or caches meet another's."""
    command = [sys.executable, __file__, args.data, "--one", name, "--size", str(args.size), "--core", str(args.core), "--seconds",
               str(args.seconds), "--rn50", args.rn50]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        print(f"{name}: left out: {lines[-1]}", file=sys.stderr)
        return None
    return float(done.stdout.strip().splitlines()[-1])


def warm(folder):
    count = size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                size += len(file.read())
            count += 1
    return count, size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rn50", default="./rn50")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", choices=PROGRAMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        os.sched_setaffinity(0, {args.core})
        print(PROGRAMS[args.one](args))
        return
    count, size = warm(args.data)
    print(f"{count:,} pictures of {size / count / 1e3:,.0f} KB, to {args.size} px, core {args.core}, {args.turns} turns of "
          f"{args.seconds:g} s", file=sys.stderr)
    figures = {name: [] for name in PROGRAMS}
    for turn in range(args.turns):
        for name, values in figures.items():
            if turn == len(values):  # not left out before
                value = measure(name, args)
                if value is not None:
                    values.append(value)
    medians = {name: statistics.median(values) for name, values in figures.items() if values}
    if args.json:
        print(json.dumps({"medians": medians, "turns": figures}))
        return
    print(f"{'':14s} {'images/s':>9s} {'lowest':>8s} {'highest':>8s}   rn50 is")
    for name, median in medians.items():
        ratio = f"{medians['rn50'] / median:.2f}x" if "rn50" in medians and name != "rn50" else ""
        print(f"{name:14s} {median:9.0f} {min(figures[name]):8.0f} {max(figures[name]):8.0f}   {ratio}")


if __name__ == "__main__":
    main()

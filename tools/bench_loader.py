#!/usr/bin/env python3
"""How many pictures a second one core reads, decodes, crops, flips and resizes for training: rn50 beside torchvision's
ImageFolder + DataLoader and NVIDIA DALI's CPU pipeline, and rn50 on the same pictures after `pack --restart-markers`.

RandomResizedCrop (area 0.08 to 1) to SIZE and a horizontal flip, shuffled, from the same files, no cache of decoded
pictures. Everything is pinned to one core (torchvision and DALI with as many of their own threads or workers as are best
there: none and one). The programs take turns; a figure is the median over the turns. Torchvision and DALI also
normalise, because their nets want that from the loader; rn50's net takes bytes and normalises within its first layer.

A second table holds rn50's milliseconds of processor time a picture by the crop's share of the area (--shares no leaves it
out), from the files as they are and with restart markers.

    tools/bench_loader.py DATA [--size 224] [--core 1] [--turns 3] [--seconds 10] [--rn50 ./rn50] [--packed DIR] [--json]

DATA: a folder with a folder for each class, as torchvision's ImageFolder takes it; some thousand pictures, which fit into
the page cache (they are read once before the clock runs). --packed names where the packed set is, or is to be made; without
it one is made in a temporary folder and removed. Needs torch, torchvision and nvidia-dali for the rivals; what is missing is
left out and said.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

BATCH, WARM_UP = 64, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHARES = ("0.05", "0.1", "0.25", "0.5", "1", "0.08 to 1")
MARKED = "rn50, markers"
FFCV = "FFCV publishes 860 images/s a core, for pictures of 512 px at q90, on another machine"


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


def bench_loader(args, calls, *options):
    """images/s, and the seconds of processor time of the whole program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run([args.rn50, "bench", "loader", args.data, "--val-split", "0.01", "--device", "cpu", "--workers", "1",
                           "--threads", "1", "--batch-size", str(BATCH), "--image-size", str(args.size), "--max-steps",
                           str(calls), "--json", *options], check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return json.loads(said.stdout)["images_per_s"], after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rn50(args):
    # So many batches as fill the time.
    return bench_loader(args, max(4, int(bench_loader(args, 8)[0] * args.seconds / BATCH)))[0]


def processor_time(args):
    """Milliseconds a picture: what a longer run takes more than a shorter one, so that the start does not count."""
    crop = ("--crop-scale", ",".join((args.share.split(" to ") * 2)[:2]))
    short = 4
    rate, before = bench_loader(args, short, *crop)
    long = short + max(4, int(rate * args.seconds / 2 / BATCH))
    return 1000 * (bench_loader(args, long, *crop)[1] - before) / ((long - short) * BATCH)


PROGRAMS = {"torchvision": torchvision, "DALI (CPU)": dali, "rn50": rn50, MARKED: rn50, "processor time": processor_time}


def measure(name, args, data, share=""):
    """In a process of its own, so that no library's threads or caches meet another's."""
    command = [sys.executable, __file__, data, "--one", name, "--size", str(args.size), "--core", str(args.core), "--seconds",
               str(args.seconds), "--rn50", args.rn50, "--share", share]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        print(f"{name}: left out: {lines[-1]}", file=sys.stderr)
        return None
    return float(done.stdout.strip().splitlines()[-1])


def turns_of(what, args):
    """what: (label, program, folder, share). The figures by label, one a turn."""
    figures = {label: [] for label, *_ in what}
    for turn in range(args.turns):
        for label, *how in what:
            if turn == len(figures[label]):  # not left out before
                value = measure(how[0], args, *how[1:])
                if value is not None:
                    figures[label].append(value)
    return {label: values for label, values in figures.items() if values}


def warm(folder):
    count = size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                size += len(file.read())
            count += 1
    return count, size


def marked_copy(args, folder):
    """The set with restart markers, made unless it is there."""
    subprocess.run([args.rn50, "pack", args.data, folder, "--format", "folder", "--restart-markers", "--quiet"], check=True,
                   stdout=subprocess.DEVNULL)
    warm(folder)
    return folder


def print_rates(figures):
    print(f"{'':14s} {'images/s':>9s} {'lowest':>8s} {'highest':>8s}   rn50 is")
    medians = {label: statistics.median(values) for label, values in figures.items()}
    for label, median in medians.items():
        ratio = f"{medians['rn50'] / median:.2f}x" if "rn50" in medians and label != "rn50" else ""
        print(f"{label:14s} {median:9.0f} {min(figures[label]):8.0f} {max(figures[label]):8.0f}   {ratio}")


def print_shares(figures):
    print("\nms of processor time a picture, by the crop's share of the area:")
    print(f"{'':14s}" + "".join(f"{share:>11s}" for share in SHARES))
    for program in ("rn50", MARKED):
        print(f"{program:14s}" + "".join(f"{statistics.median(figures[program, share]):11.2f}" for share in SHARES))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rn50", default="./rn50")
    parser.add_argument("--packed", help="the set with restart markers, made there unless it is there")
    parser.add_argument("--rates", choices=("yes", "no"), default="yes")
    parser.add_argument("--shares", choices=("yes", "no"), default="yes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--share", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        os.sched_setaffinity(0, {args.core})
        print(PROGRAMS[args.one](args))
        return
    count, size = warm(args.data)
    print(f"{count:,} pictures of {size / count / 1e3:,.0f} KB, to {args.size} px, core {args.core}, {args.turns} turns of "
          f"{args.seconds:g} s", file=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        marked = marked_copy(args, args.packed or os.path.join(temporary, "packed"))
        rates, shares = {}, {}
        if args.rates == "yes":
            rates = turns_of([(name, name, marked if name == MARKED else args.data, "") for name in
                              ("torchvision", "DALI (CPU)", "rn50", MARKED)], args)
        if args.shares == "yes":
            shares = turns_of([((name, share), "processor time", data, share) for share in SHARES
                               for name, data in (("rn50", args.data), (MARKED, marked))], args)
    if args.json:
        print(json.dumps({"turns": rates, "processor_ms": {f"{name}, {share}": values for (name, share), values in
                                                           shares.items()}}))
        return
    if rates:
        print_rates(rates)
        print(FFCV)
    if shares:
        print_shares(shares)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How many pictures a second one core reads, decodes, crops, flips and resizes for training: rn50 beside torchvision's
ImageFolder + DataLoader and NVIDIA DALI's CPU pipeline, and rn50 on the same pictures after `pack --restart-markers`.

RandomResizedCrop (area 0.08 to 1) to SIZE and a horizontal flip, shuffled, from the same files, no cache of decoded
pictures. Everything is pinned to one core (torchvision and DALI with as many of their own threads or workers as are best
there: none and one). The programs take turns; a figure is the median over the turns. Torchvision and DALI also
normalise, because their nets want that from the loader; rn50's net takes bytes and normalises within its first layer.

A second table holds rn50's milliseconds of processor time a picture by the crop's share of the area (--shares no leaves it
out), from the files as they are and with restart markers.

    tools/bench_loader.py --photos FOLDER [--copies 5000] [--sets DIR]      everything, in one go
    tools/bench_loader.py DATA [--packed DIR]                               one set as it is
    both: [--size 224] [--core 1] [--turns 3] [--seconds 10] [--rn50 ./rn50] [--shares no] [--json]

--photos: a folder of photographs of any size, the larger and the more different the better. Two sets are made of them, of
1024x1024 and of 512x512: each photograph's middle square, resized by Pillow, JPEG of quality 90, 4:2:0, without restart
markers; then copied in turn until there are --copies files. Copies differ by a JPEG comment that numbers them: other files
to the disk and the page cache, the same work for a decoder. --sets names where the sets are, or are to be made; without it
they lie in a temporary folder and are removed. A last table says which targets are reached: 5 times torchvision and 1.5
times DALI's CPU pipeline at 1024 px, and 860 images/s a core at 512 px.

DATA: a folder with a folder for each class, as torchvision's ImageFolder takes it; some thousand pictures, which fit into
the page cache (they are read once before the clock runs). --packed names where the packed set is, or is to be made; without
it one is made in a temporary folder and removed.

The rivals need torch, torchvision and nvidia-dali; what is missing is left out and said, and what it would judge is not
judged. Making sets needs Pillow.
"""
import argparse
import io
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
PACKAGES = {"torchvision": "torch torchvision", "DALI (CPU)": "nvidia-dali-cuda120"}
# Side of the pictures in pixels, program that rn50 is held against (none: images/s), and the least that is wanted.
# FFCV publishes 860 images/s a core for pictures of 512 px at q90, on another machine.
TARGETS = ((1024, "torchvision", 5), (1024, "DALI (CPU)", 1.5), (512, None, 860))
SIDES = (1024, 512)


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
        how = f" (pip install {PACKAGES[name]})" if "No module named" in lines[-1] and name in PACKAGES else ""
        print(f"{name}: left out: {lines[-1]}{how}", file=sys.stderr)
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


def numbered(jpeg, number):
    """The same JPEG with a comment behind its start marker."""
    comment = f"copy {number}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def make_sets(photos, copies, folder):
    """FOLDER/SIDE/CLASS/NUMBER.jpg for every side, made unless they are there. The set folders by side."""
    sets = {side: os.path.join(folder, str(side)) for side in SIDES}
    if all(os.path.exists(os.path.join(path, "complete")) for path in sets.values()):
        for side, path in sets.items():
            with open(os.path.join(path, "complete")) as file:
                if int(file.read()) != copies:
                    sys.exit(f"{path} holds another number of copies than {copies}: name a new folder by --sets")
        return {side: os.path.join(path, "pictures") for side, path in sets.items()}
    try:
        from PIL import Image
    except ImportError as error:
        sys.exit(f"making sets of photographs needs Pillow: {error} (pip install pillow)")
    files = sorted(os.path.join(root, name) for root, _, names in os.walk(photos) for name in names
                   if name.lower().endswith((".jpg", ".jpeg", ".png", ".bmp", ".ppm")))[:copies]
    if not files:
        sys.exit(f"{photos}: no photographs below it")
    small = 0
    for index, file in enumerate(files):
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        side = min(picture.size)
        small += side < max(SIDES)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((left, top, left + side, top + side))
        for wanted, path in sets.items():
            data = io.BytesIO()
            square.resize((wanted, wanted), Image.Resampling.LANCZOS).save(data, "JPEG", quality=90)
            for number in range(index, copies, len(files)):
                of_class = os.path.join(path, "pictures", f"class_{number % 10}")
                os.makedirs(of_class, exist_ok=True)
                with open(os.path.join(of_class, f"{number:06d}.jpg"), "wb") as made:
                    made.write(numbered(data.getvalue(), number))
    for path in sets.values():
        with open(os.path.join(path, "complete"), "w") as file:
            file.write(str(copies))
    print(f"{len(files)} photographs became {copies:,} files of {' and of '.join(f'{side} px' for side in SIDES)}; copies differ by "
          "a JPEG comment", file=sys.stderr)
    if small:
        print(f"{small} of the photographs are smaller than {max(SIDES)} px and were enlarged: their files are smaller and "
              "quicker than a camera's", file=sys.stderr)
    return {side: os.path.join(path, "pictures") for side, path in sets.items()}


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


def judge(rates):
    """rates: the figures by program, by side. (target, side, measured, verdict) of each."""
    verdicts = []
    for side, rival, least in TARGETS:
        target = f"{least:g} times {rival}" if rival else f"{least} images/s a core"
        medians = {name: statistics.median(values) for name, values in rates.get(side, {}).items()}
        if "rn50" not in medians or (rival and rival not in medians):
            missing = rival if "rn50" in medians else "rn50"
            verdicts.append((target, side, None, f"not judged: {missing} was not measured"))
            continue
        value = medians["rn50"] / medians[rival] if rival else medians["rn50"]
        verdicts.append((target, side, value, "reached" if value >= least else "missed"))
    return verdicts


def print_verdicts(verdicts):
    print(f"\n{'target':28s} {'pictures':>8s} {'measured':>9s}   verdict")
    for target, side, value, verdict in verdicts:
        shown = "" if value is None else f"{value:.2f}x" if "times" in target else f"{value:.0f}"
        print(f"{target:28s} {side:5d} px {shown:>9s}   {verdict}")


def measure_set(args, packed):
    """Rates and processor times of the set args.data."""
    count, size = warm(args.data)
    if count < 2 * BATCH:
        sys.exit(f"{args.data}: {count} pictures; at least {2 * BATCH} are needed for batches of {BATCH}")
    print(f"{count:,} pictures of {size / count / 1e3:,.0f} KB, to {args.size} px, core {args.core}, {args.turns} turns of "
          f"{args.seconds:g} s", file=sys.stderr)
    marked = marked_copy(args, packed)
    rates, shares = {}, {}
    if args.rates == "yes":
        rates = turns_of([(name, name, marked if name == MARKED else args.data, "") for name in
                          ("torchvision", "DALI (CPU)", "rn50", MARKED)], args)
    if args.shares == "yes":
        shares = turns_of([((name, share), "processor time", data, share) for share in SHARES
                           for name, data in (("rn50", args.data), (MARKED, marked))], args)
    return rates, shares


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--photos", help="a folder of photographs, of which the sets are made")
    parser.add_argument("--copies", type=int, default=5000, help="files of each set")
    parser.add_argument("--sets", help="where those sets are, or are to be made")
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
    if bool(args.data) == bool(args.photos):
        parser.error("give either DATA, or --photos FOLDER")
    if args.packed and args.photos:
        parser.error("--packed goes with DATA; --sets says where the sets of --photos lie")
    rates, shares = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        if args.photos:
            folder = os.path.abspath(args.sets or temporary)
            for side, args.data in make_sets(args.photos, args.copies, folder).items():
                rates[side], shares[side] = measure_set(args, os.path.join(folder, str(side), "packed"))
        else:
            rates[0], shares[0] = measure_set(args, args.packed or os.path.join(temporary, "packed"))
    verdicts = judge(rates) if args.photos else []
    if args.json:
        print(json.dumps([{"side": side or None, "turns": rates[side],
                           "processor_ms": {f"{name}, {share}": values for (name, share), values in shares[side].items()},
                           "targets": [dict(zip(("target", "side", "measured", "verdict"), verdict)) for verdict in verdicts
                                       if verdict[1] == side]} for side in rates]))
        return
    for side in rates:
        if args.photos:
            print(f"\npictures of {side} px")
        if rates[side]:
            print_rates(rates[side])
        if shares[side]:
            print_shares(shares[side])
    if args.photos:
        print_verdicts(verdicts)


if __name__ == "__main__":
    main()

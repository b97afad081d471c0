#!/usr/bin/env python3
"""Holds the pixels that rn50 decodes against Pillow's, for every picture file in a folder and the folders below it.

    python3 -m venv venv && venv/bin/pip install pillow numpy
    venv/bin/python tools/check_odd_images.py FOLDER [--program ./rn50] [--all]

For folders of odd files, such as Pillow's Tests/images, PngSuite and bmpsuite. rn50 decodes them by `pack --encode png`, so
what is compared are the pixels that training sees: upright, RGB, 8 bits. Pillow does the same by
ImageOps.exif_transpose(image).convert("RGB"); 16 bits of grey, which it would clip, are scaled here. A level or two may lie
between two builds of libjpeg and one between two ways of rounding 16 bits; nothing else may differ.

Prints a table of verdicts and every file that is not alike, with the reason where REASONS has one (--all: every file).
Exits 1 when there is a disagreement without a reason, or a reason that no longer holds.
"""
import argparse
import collections
import os
import shutil
import subprocess
import sys
import tempfile
import warnings

import numpy as np
from PIL import Image, ImageOps

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tga", ".ppm", ".pgm")

# Files of the collections named above on which the two disagree, by the end of their path, and why that is right.
REFUSED = "rn50 refuses"
TAKEN = "Pillow refuses"
PIXELS = "other pixels"
REASONS = {
    "bmp/b/badrle.bmp": (PIXELS, "runs leave the picture: rn50 drops what is too much, Pillow lets it flow into the next row"),
    "bmp/b/pal8badindex.bmp": (REFUSED, "pixels use colours that the palette does not have; Pillow makes them up"),
    "hopper_bad_exif.jpg": (REFUSED, "the scan is damaged throughout; Pillow ignores libjpeg's warnings and gives noise"),
    "xcsn0g01.png": (REFUSED, "the checksum of the pixels is wrong; libpng refuses it too, Pillow does not look"),
}


def pixels_of_pillow(path):
    """(RGB, None) or (None, why not)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
                image = ImageOps.exif_transpose(image)
                if image.mode.startswith("I"):
                    gray = ((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8)
                    return np.repeat(gray[:, :, None], 3, axis=2), None
                return np.asarray(image.convert("RGB")), None
    except Exception as error:  # whatever Pillow throws at odd files
        return None, f"{type(error).__name__}: {error}"


def tolerance(path):
    with open(path, "rb") as file:
        head = file.read(26)
    if head[:2] == b"\xff\xd8":
        return 2
    return 1 if head[:4] == b"\x89PNG" and head[24:25] == b"\x10" else 0


def pixels_of_rn50(program, paths, folder):
    """By path: (RGB, None) or (None, why not)."""
    data, out = os.path.join(folder, "data"), os.path.join(folder, "out")
    os.makedirs(os.path.join(data, "odd"))
    names = {}
    for i, path in enumerate(paths):
        names[path] = f"{i:06d}" + os.path.splitext(path)[1].lower()
        shutil.copyfile(path, os.path.join(data, "odd", names[path]))
    command = [program, "pack", data, out, "--format", "folder", "--encode", "png", "--max-bad", "1", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    bad = {}
    if os.path.exists(os.path.join(out, "bad.txt")):
        with open(os.path.join(out, "bad.txt"), errors="replace") as file:
            for line in file:
                name, reason = line.rstrip("\n").split("\t", 1)
                bad[os.path.basename(name)] = reason
    results = {}
    for path, name in names.items():
        if name in bad:
            results[path] = None, bad[name]
            continue
        made = os.path.join(out, "odd", name if name.endswith(".png") else name + ".png")
        with Image.open(made) as image:
            results[path] = np.asarray(image.convert("RGB")), None
    return results


def verdict(path, ours, why_not_ours, theirs, why_not_theirs):
    if ours is None and theirs is None:
        return "both refuse", f"{why_not_ours}; {why_not_theirs}"
    if ours is None:
        return REFUSED, why_not_ours
    if theirs is None:
        return TAKEN, why_not_theirs
    if ours.shape != theirs.shape:
        return PIXELS, f"{ours.shape[1]}x{ours.shape[0]} and {theirs.shape[1]}x{theirs.shape[0]}"
    apart = np.abs(ours.astype(int) - theirs.astype(int))
    if apart.max() > tolerance(path):
        return PIXELS, f"up to {apart.max()}, {apart.mean():.3f} on average"
    return "alike", ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--program", default="./rn50")
    parser.add_argument("--all", action="store_true", help="list every file")
    args = parser.parse_args()
    paths = sorted(
        os.path.join(base, name)
        for base, _, names in os.walk(args.folder)
        for name in names
        if name.lower().endswith(EXTENSIONS)
    )
    if not paths:
        sys.exit(f"{args.folder}: no picture files below it")
    with tempfile.TemporaryDirectory() as scratch:
        ours = pixels_of_rn50(args.program, paths, scratch)
        counts, unexplained, met = collections.Counter(), 0, set()
        for path in paths:
            kind, details = verdict(path, *ours[path], *pixels_of_pillow(path))
            shown = os.path.relpath(path, args.folder)
            reason = ""
            for end, (wanted, why) in REASONS.items():
                if ("/" + path).endswith("/" + end):
                    met.add(end)
                    reason = why if wanted == kind else ""
                    if kind == "alike":
                        unexplained += 1
                        print(f"{shown}: alike, though REASONS says {wanted!r}")
            counts[kind, bool(reason)] += 1
            wrong = kind in (REFUSED, PIXELS) and not reason
            unexplained += wrong
            if args.all or kind != "alike":
                print(f"{'! ' if wrong else '  '}{kind:15} {shown}: {details}{' -- ' + reason if reason else ''}")
    print()
    for kind in ("alike", "both refuse", TAKEN, REFUSED, PIXELS):
        with_reason = counts[kind, True]
        print(f"{kind:15} {counts[kind, True] + counts[kind, False]:5}" + (f", {with_reason} with a reason" if with_reason else ""))
    print(f"{unexplained} without a reason, of {len(paths)} files (Pillow {Image.__version__})")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Writes tests/golden/pictures/: small picture files of every kind, and what Pillow makes of them.

    python3 -m venv venv && venv/bin/pip install pillow numpy
    venv/bin/python tools/golden_pictures.py

NAME.EXT is decoded by Pillow, turned upright, converted to RGB and kept as NAME.EXT.rgb: int32 height, int32 width (little
endian), then the pixels. resize_*.rgb, jitter_*.rgb, center_*.rgb and letterbox_*.rgb are results of Pillow on the
formula picture that tests/test_pipeline_resize.cpp makes too.
"""
import pathlib
import struct

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "pictures"


def formula(height, width):
    """Gradients, an edge and noise, in 32-bit integers."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    index = ((y * width + x) * 3 + c).astype(np.uint64)
    noise = ((index * 2654435761 + 12345) & 0xFFFFFFFF) >> 27
    value = (x * 5 + y * 3 + c * 40) % 200 + noise.astype(np.int64)
    value = np.where((x * 2 > width) & (y * 3 < height), 255 - value, value)
    return np.clip(value, 0, 255).astype(np.uint8)


def write_rgb(name, image):
    pixels = np.asarray(image)
    assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
    (OUT / f"{name}.rgb").write_bytes(struct.pack("<ii", *pixels.shape[:2]) + pixels.tobytes())


def write_decoded(file):
    with Image.open(OUT / file) as image:
        write_rgb(file, ImageOps.exif_transpose(image).convert("RGB"))


def save(image, file, **options):
    image.save(OUT / file, **options)
    write_decoded(file)


def pictures():
    rgb = Image.fromarray(formula(19, 26))
    save(rgb, "baseline.jpg", quality=90)
    save(rgb, "444.jpg", quality=95, subsampling=0)
    save(rgb, "progressive.jpg", quality=90, progressive=True)
    save(rgb, "restart.jpg", quality=90, restart_marker_blocks=1)
    save(rgb.convert("L"), "gray.jpg", quality=90)
    save(rgb.convert("CMYK"), "cmyk.jpg", quality=90)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(rgb, f"orientation_{orientation}.jpg", quality=90, exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(rgb, "rgb.png", exif=exif)
    save(rgb, "stored.png", compress_level=0)
    save(rgb.convert("L"), "gray.png")
    save(rgb.convert("1"), "bits.png")
    save(rgb.quantize(7), "palette.png", bits=4)
    rgba = rgb.copy()
    rgba.putalpha(Image.fromarray(formula(19, 26)[:, :, 1]))
    save(rgba, "alpha.png")
    save(rgb, "rgb.bmp")
    save(rgb.convert("L"), "gray.bmp")
    save(rgb.quantize(7), "palette.bmp")
    save(rgb, "rgb.tga")
    save(rgb, "runs.tga", compression="tga_rle")
    save(rgb, "rgb.ppm")
    save(rgb.convert("L"), "gray.pgm")
    # Pillow clips 16-bit grey instead of scaling it, so the expected picture is computed here.
    deep = formula(19, 26)[:, :, 0].astype(np.uint16) * 251 + np.arange(26, dtype=np.uint16)
    Image.fromarray(deep).save(OUT / "deep.png")
    write_rgb("deep.png", np.repeat(np.floor(deep / 257 + 0.5).astype(np.uint8)[:, :, None], 3, axis=2))


# height, width, to height, to width, box
RESIZES = [
    (40, 60, 16, 16, None),
    (40, 60, 17, 23, (3, 5, 50, 39)),
    (40, 60, 12, 20, (7.25, 4.5, 41.75, 30.125)),
    (11, 7, 24, 20, None),
    (11, 7, 9, 31, (1.5, 2.5, 5.25, 9.0)),
    (300, 200, 10, 9, None),
    (1, 50, 8, 8, None),
    (50, 1, 8, 8, None),
    (24, 24, 24, 24, None),
    (33, 129, 32, 128, None),
]


def resizes():
    for i, (height, width, to_height, to_width, box) in enumerate(RESIZES):
        image = Image.fromarray(formula(height, width))
        write_rgb(f"resize_{i}", image.resize((to_width, to_height), Image.Resampling.BILINEAR, box=box))


def geometry():
    size = 28
    for name, (height, width) in {"wide": (40, 75), "tall": (90, 41)}.items():
        image = Image.fromarray(formula(height, width))
        # torchvision: Resize(32) then CenterCrop(28)
        shorter = size * 256 // 224
        if width <= height:
            to_width, to_height = shorter, int(shorter * height / width)
        else:
            to_width, to_height = int(shorter * width / height), shorter
        whole = image.resize((to_width, to_height), Image.Resampling.BILINEAR)
        top, left = int(round((to_height - size) / 2.0)), int(round((to_width - size) / 2.0))
        write_rgb(f"center_{name}", whole.crop((left, top, left + size, top + size)))
        longest = max(height, width)
        to_height, to_width = (int(side * size / longest + 0.5) for side in (height, width))
        canvas = Image.new("RGB", (size, size), (114, 114, 114))
        small = image.resize((to_width, to_height), Image.Resampling.BILINEAR)
        canvas.paste(small, ((size - to_width) // 2, (size - to_height) // 2))
        write_rgb(f"letterbox_{name}", canvas)


def jitters():
    image = Image.fromarray(formula(20, 20))
    write_rgb("jitter_brightness", ImageEnhance.Brightness(image).enhance(1.25))
    write_rgb("jitter_contrast", ImageEnhance.Contrast(image).enhance(0.625))
    write_rgb("jitter_saturation", ImageEnhance.Color(image).enhance(1.5))


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    pictures()
    resizes()
    geometry()
    jitters()

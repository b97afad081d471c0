#!/usr/bin/env python3
"""Writes tests/golden/augment/: what torchvision makes of the formula picture, operation by operation.

    python3 -m venv venv && venv/bin/pip install pillow numpy torch torchvision
    venv/bin/python tools/golden_augment.py

NAME.rgb holds int32 height, int32 width (little endian), then the pixels. OP_N.rgb: torchvision's _apply_op on a Pillow
picture with nearest interpolation and a grey filling; the magnitudes stand in cases.txt, one line an operation:
file name, torchvision's name, magnitude. blur_N.rgb: gaussian_blur; its line has the sigma. spaces.txt: magnitudes of
RandAugment (at 224 pixels) and TrivialAugmentWide, by operation and step.
"""
import math
import pathlib

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.transforms import InterpolationMode, autoaugment
from torchvision.transforms import functional as F

import golden_pictures

SIZE = 20
GREY = [114, 114, 114]
golden_pictures.OUT = OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "augment"

CASES = {
    "ShearX": (0.09, -0.3, 0.99),
    "ShearY": (0.09, -0.3, -0.99),
    "TranslateX": (3, -7),
    "TranslateY": (4, -9),
    "Rotate": (9, -30, 90, -135, 49.5),
    "Brightness": (0.27, -0.9, 0.99),
    "Color": (0.27, -0.9, 0.99),
    "Contrast": (0.27, -0.9, 0.99),
    "Sharpness": (0.27, -0.9, 0.99),
    "Posterize": (4, 7, 2),
    "Solarize": (178.5, 0, 255),
    "AutoContrast": (0,),
    "Equalize": (0,),
}


def operations(image):
    lines = []
    for op, magnitudes in CASES.items():
        for n, magnitude in enumerate(magnitudes):
            name = f"{op.lower()}_{n}"
            changed = autoaugment._apply_op(image, op, magnitude, InterpolationMode.NEAREST, GREY)
            golden_pictures.write_rgb(name, changed)
            lines.append(f"{name} {op} {magnitude}")
    large = Image.fromarray(golden_pictures.formula(40, 40))  # more pixels than equalize has steps
    golden_pictures.write_rgb("equalize_large", autoaugment._apply_op(large, "Equalize", 0, InterpolationMode.NEAREST, GREY))
    return lines + ["equalize_large Equalize 0"]


def blurs(image):
    lines = []
    for n, sigma in enumerate((0.1, 0.7, 2.0, 9.0)):
        radius = min(math.ceil(3 * sigma), SIZE - 1)
        blurred = F.gaussian_blur(image, 2 * radius + 1, sigma)
        golden_pictures.write_rgb(f"blur_{n}", blurred)
        lines.append(f"blur_{n} Blur {sigma}")
    return lines


def spaces():
    wide = autoaugment.TrivialAugmentWide()._augmentation_space(31)
    rand = autoaugment.RandAugment()._augmentation_space(31, (224, 224))
    for policy, space in (("randaugment", rand), ("trivial", wide)):
        for op, (magnitudes, signed) in space.items():
            for step in (0, 1, 9, 14, 15, 16, 29, 30):
                value = float(magnitudes[step]) if magnitudes.ndim else 0.0
                # _apply_op cuts to whole pixels; steps in f32 may end just below one
                value = int(value + 1e-4) if op.startswith("Translate") or op == "Posterize" else value
                yield f"{policy} {op} {step} {value:.9g} {int(signed)}"


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(golden_pictures.formula(SIZE, SIZE))
    (OUT / "cases.txt").write_text("\n".join(operations(image) + blurs(image)) + "\n")
    (OUT / "spaces.txt").write_text("\n".join(spaces()) + "\n")
    (OUT / "README.md").write_text(
        f"Made by `tools/golden_augment.py` with torchvision {torchvision.__version__.split('+')[0]}, PyTorch "
        f"{torch.__version__.split('+')[0]}, Pillow {Image.__version__} and NumPy {np.__version__}.\n")


if __name__ == "__main__":
    main()

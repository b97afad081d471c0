#!/usr/bin/env python3
"""Repeats the steps of an rn50 run in PyTorch, and compares the smoothed losses.

    tools/torch_losses.py init OUT.safetensors --classes N      starting weights for rn50 train --init, drawn by PyTorch
    tools/torch_losses.py compare RUN DATA INIT.safetensors [--device cuda]

`compare` reads RUN/run.toml and RUN/metrics.jsonl and makes the same steps: the same weights, the same pictures in the
same order (rn50's shuffle, a Fisher-Yates by Philox, is written out below), the same learning rate at each step, AdamW, a
constant loss scale. The run must have been made with

    rn50 train DATA --init INIT --augment none --dropout 0 --loss-scale 1024 --image-size SIDE

over square pictures of that very side, so that nothing is resampled. PyTorch runs twice, channels_last and NCHW: how far
it is from itself says what the comparison can show. It passes when rn50 is at most five times as far, or within half a
percent of the first loss, in every window of steps.

needs torch, torchvision, numpy and Pillow.
"""
import argparse
import json
import pathlib
import struct
import sys

import numpy as np
import torch
import torchvision
from PIL import Image

MASK32, MASK64 = (1 << 32) - 1, (1 << 64) - 1
SHUFFLE = 1  # rn50's Purpose::shuffle
ENOUGH = 0.005


# --- rn50's order of an epoch -------------------------------------------------------------------------------------------

def philox(counter, key):
    """Philox4x32-10 (Salmon et al., 2011)."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k0, b & MASK32, a >> 32 ^ c[3] ^ k1, a & MASK32]
        k0, k1 = k0 + 0x9E3779B9 & MASK32, k1 + 0xBB67AE85 & MASK32
    return c


def random_words(seed, epoch, purpose):
    block = 0
    while True:
        yield from philox((block, epoch, 0, purpose << 24), (seed & MASK32, seed >> 32))
        block += 1


def epoch_order(count, seed, epoch):
    words = random_words(seed, epoch, SHUFFLE)
    order = list(range(count))
    for i in range(count, 1, -1):
        draw = next(words) << 32 | next(words)
        j = draw * i >> 64
        order[i - 1], order[j] = order[j], order[i - 1]
    return order


# --- files --------------------------------------------------------------------------------------------------------------

DTYPES = {"F32": np.float32, "I64": np.int64}


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        dtype = next(key for key, value in DTYPES.items() if value == tensor.dtype)
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            out.write(np.ascontiguousarray(tensor).tobytes())


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    size, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[8 + size + begin:8 + size + end], DTYPES[entry["dtype"]])
        tensors[name] = torch.from_numpy(values.reshape(entry["shape"]).copy())
    return tensors


def options_of(run):
    """The flat `key = value` lines of run.toml."""
    options = {}
    for line in (run / "run.toml").read_text().splitlines():
        key, separator, value = line.partition(" = ")
        if separator and not line.startswith("#"):
            options[key] = json.loads(value)
    return options


def pictures_of(folder, side):
    """Classes and pictures sorted as bytes, as rn50 numbers them: u8 {count, side, side, 3} and their labels."""
    pictures, labels = [], []
    classes = sorted((c for c in folder.iterdir() if c.is_dir()), key=lambda c: c.name.encode())
    for label, one in enumerate(classes):
        for path in sorted(one.iterdir(), key=lambda p: p.name.encode()):
            picture = np.asarray(Image.open(path).convert("RGB"))
            if picture.shape != (side, side, 3):
                sys.exit(f"{path} is {picture.shape[1]}x{picture.shape[0]}, not {side}x{side}")
            pictures.append(picture)
            labels.append(label)
    return torch.from_numpy(np.stack(pictures)), torch.tensor(labels), len(classes)


# --- the steps ----------------------------------------------------------------------------------------------------------

def losses_of(options, rates, pictures, labels, classes, weights, device, layout):
    """PyTorch's loss at each step."""
    kind = torch.device(device).type
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(options["precision"])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options["precision"] != "fp32"
    net = getattr(torchvision.models, options["model"])(num_classes=classes)
    net.load_state_dict(weights)
    net = net.to(device, memory_format=layout).train()
    decayed = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": options["weight-decay"]},
                                   {"params": others, "weight_decay": 0.0}])
    scale = options["loss-scale"] or 1.0
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    batch = options["batch-size"]
    per_epoch = len(labels) // batch
    order, losses = [], []
    for step, rate in enumerate(rates):
        if step % per_epoch == 0:
            order = epoch_order(len(labels), options["seed"], step // per_epoch)
        chosen = torch.tensor(order[step % per_epoch * batch:][:batch])
        x = ((pictures[chosen].permute(0, 3, 1, 2).float() / 255 - mean) / deviation)
        x = x.to(device).contiguous(memory_format=layout)
        with torch.autocast(kind, half or torch.bfloat16, enabled=half is not None):
            loss = torch.nn.functional.cross_entropy(net(x), labels[chosen].to(device))
        optimizer.zero_grad(set_to_none=True)
        (loss * scale).backward()
        gradients = [p.grad for p in net.parameters()]
        torch._foreach_mul_(gradients, 1.0 / scale)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if all(bool(torch.isfinite(g).all()) for g in gradients):
            optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def smoothed(losses, window):
    return [float(np.mean(losses[i:i + window])) for i in range(0, len(losses) - window + 1, window)]


def distance(a, b):
    return max(abs(x - y) for x, y in zip(a, b))


def compare(asked):
    run = pathlib.Path(asked.run)
    options = options_of(run)
    if options["augment"] != "none" or options["dropout"] != 0 or options["label-smoothing"] != 0:
        sys.exit(f"{run} was not made with --augment none --dropout 0")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    pictures, labels, classes = pictures_of(pathlib.Path(asked.data) / "train", options["image-size"])
    weights = read_safetensors(asked.init)
    ours = [line["loss"] for line in steps]
    theirs = [losses_of(options, [line["lr"] for line in steps], pictures, labels, classes, weights, asked.device, layout)
              for layout in (torch.channels_last, torch.contiguous_format)]
    window = max(1, len(steps) // 5)
    rn50, torch_a, torch_b = (smoothed(losses, window) for losses in (ours, *theirs))
    first = theirs[0][0]
    difference, own = distance(rn50, torch_a) / first, distance(torch_b, torch_a) / first
    limit = max(5 * own, ENOUGH)
    print(json.dumps({
        "steps": len(steps), "window": window, "rn50": rn50, "torch": torch_a, "torch_nchw": torch_b,
        "first_step": [ours[0], theirs[0][0], theirs[1][0]],
        "difference": difference, "torch_own_difference": own, "limit": limit, "passed": difference <= limit,
        "precision": options["precision"], "loss_scale": options["loss-scale"], "batch_size": options["batch-size"],
        "image_size": options["image-size"], "torch_version": torch.__version__,
    }))
    return 0 if difference <= limit else 1


def init(asked):
    torch.manual_seed(0)
    net = getattr(torchvision.models, asked.model)(num_classes=asked.classes, zero_init_residual=True)
    write_safetensors(asked.out, {name: value.numpy() for name, value in net.state_dict().items()})
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("init")
    one.add_argument("out")
    one.add_argument("--classes", type=int, required=True)
    one.add_argument("--model", default="resnet50")
    one.set_defaults(run_command=init)
    one = commands.add_parser("compare")
    one.add_argument("run")
    one.add_argument("data")
    one.add_argument("init")
    one.add_argument("--device", default="cuda")
    one.set_defaults(run_command=compare)
    asked = parser.parse_args()
    return asked.run_command(asked)


if __name__ == "__main__":
    sys.exit(main())

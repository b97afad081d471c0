#!/usr/bin/env python3
"""How fast the usual PyTorch recipe trains from JPEG files on this machine, to stand beside `rn50 train`.

ImageFolder and DataLoader with processes as workers and pinned memory, RandomResizedCrop (area 0.08 to 1) and a horizontal
flip by Pillow, ToTensor and Normalize; ResNet-50 in channels_last with AMP (GradScaler for fp16), cudnn.benchmark, fused
AdamW 1e-4. The workers live from epoch to epoch, and batches are brought to the device without waiting.

One line of JSON for each epoch: {"epoch", "images_per_s", "data_wait", "device", "workers", "batch_size", "precision"}.
images_per_s counts whole batches from the first picture asked for to the last step done; data_wait is the share of that
time in which the next batch was waited for. The first epoch holds the start of the workers and cuDNN's search.

    tools/torch_recipe.py DATA [--workers 16] [--batch-size 128] [--epochs 3] [--precision fp16|bf16|fp32]
                               [--image-size 224] [--device cuda]

DATA: a folder with a folder for each class. Needs torch and torchvision.
"""
import argparse
import json
import sys
import time

import torch
import torchvision
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def loader_of(args):
    transform = transforms.Compose([
        transforms.RandomResizedCrop(args.image_size, scale=(0.08, 1)), transforms.RandomHorizontalFlip(),
        transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    pictures = torchvision.datasets.ImageFolder(args.data, transform)
    workers = {"num_workers": args.workers}
    if args.workers > 0:
        workers.update(persistent_workers=True, prefetch_factor=4)
    return len(pictures.classes), torch.utils.data.DataLoader(
        pictures, args.batch_size, shuffle=True, drop_last=True, pin_memory=args.device == "cuda", **workers)


class Recipe:
    def __init__(self, args, classes):
        self.device = torch.device(args.device)
        self.half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(args.precision)
        torch.backends.cudnn.benchmark = True
        net = torchvision.models.resnet50(num_classes=classes).train()
        self.net = net.to(self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(net.parameters(), 1e-4, weight_decay=1e-5, fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=args.precision == "fp16")

    def step(self, pictures, labels):
        pictures = pictures.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, self.half or torch.bfloat16, enabled=self.half is not None):
            loss = torch.nn.functional.cross_entropy(self.net(pictures), labels)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def epoch_of(recipe, loader):
    """Pictures a second, and the share of the time in which data was waited for."""
    start, waited, count = time.perf_counter(), 0.0, 0
    batches = iter(loader)
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        recipe.step(*batch)
        count += len(batch[1])
    recipe.wait()
    seconds = time.perf_counter() - start
    return count / seconds, waited / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--precision", choices=("fp16", "bf16", "fp32"), default="fp16")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    classes, loader = loader_of(args)
    if len(loader) == 0:
        sys.exit(f"{args.data}: fewer pictures than a batch of {args.batch_size}")
    recipe = Recipe(args, classes)
    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    for epoch in range(1, args.epochs + 1):
        rate, wait = epoch_of(recipe, loader)
        print(json.dumps({"epoch": epoch, "images_per_s": rate, "data_wait": wait, "device": device,
                          "workers": args.workers, "batch_size": args.batch_size, "precision": args.precision,
                          "torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()

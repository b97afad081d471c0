#!/usr/bin/env python3
"""How fast PyTorch trains the same net on this machine, to stand beside `rn50 bench step`.

One line of JSON for each case: {"images_per_s", "memory_mb", "search_mb", "reserved_mb", "device", "mode", "precision",
"batch_size", "image_size", "first_step_s"}. A step is zero_grad, forward, loss, backward, GradScaler (fp16) and fused AdamW over
pictures that are on the device already, channels_last, waited for once in a window of steps: what PyTorch does best.
images_per_s is the median over the windows. Memory is a GPU's, in 1e6 bytes (0 on a CPU): memory_mb is max_memory_allocated
of the steps after the first ones; search_mb is that of the first ones, in which cudnn.benchmark tries out convolutions
whose workspaces no later step needs; reserved_mb is what the allocator holds of the device after all.

    tools/torch_bench.py [--mode eager|compile] [--precision fp16,bf16,tf32,fp32] [--batch-size 256,64]
                         [--image-size 224] [--device cuda] [--seconds 4]

needs torch and torchvision.
"""
import argparse
import gc
import json
import statistics
import sys
import time

import torch
import torchvision

CLASSES = 1000
WARM_UP, WINDOWS = 5, 5


class Bench:
    def __init__(self, mode, precision, batch, size, device):
        self.device = torch.device(device)
        self.cuda = self.device.type == "cuda"
        half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)
        allow_tf32 = precision != "fp32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32
        torch.backends.cudnn.benchmark = True
        net = torchvision.models.resnet50(num_classes=CLASSES).train()
        net = net.to(self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(net.parameters(), 1e-4, weight_decay=1e-5, fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        pictures = torch.randn(batch, 3, size, size, device=self.device)
        self.pictures = pictures.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(0, CLASSES, (batch,), device=self.device)

        def loss_of(x, y):
            with torch.autocast(self.device.type, half or torch.bfloat16, enabled=half is not None):
                return torch.nn.functional.cross_entropy(net(x), y)

        self.loss_of = torch.compile(loss_of) if mode == "compile" else loss_of

    def wait(self):
        if self.cuda:
            torch.cuda.synchronize()

    def steps(self, count):
        """Seconds of so many steps."""
        self.wait()
        start = time.perf_counter()
        for _ in range(count):
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(self.loss_of(self.pictures, self.labels)).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.wait()
        return time.perf_counter() - start


def measure(mode, precision, batch, size, device, seconds):
    gc.collect()
    if mode == "compile":
        torch._dynamo.reset()
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    bench = Bench(mode, precision, batch, size, device)
    first = bench.steps(1)
    bench.steps(WARM_UP if cuda else 1)
    search = torch.cuda.max_memory_allocated() if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    count = max(1, round(seconds / WINDOWS / bench.steps(1)))
    a_step = statistics.median(bench.steps(count) for _ in range(WINDOWS)) / count
    return {
        "images_per_s": batch / a_step,
        "memory_mb": torch.cuda.max_memory_allocated() / 1e6 if cuda else 0,
        "search_mb": search / 1e6,
        "reserved_mb": torch.cuda.memory_reserved() / 1e6 if cuda else 0,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "mode": mode, "precision": precision, "batch_size": batch, "image_size": size, "first_step_s": first,
        "torch": torch.__version__,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--batch-size", default="256,64")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=4)
    asked = parser.parse_args()
    failed = False
    for precision in asked.precision.split(","):
        for batch in asked.batch_size.split(","):
            try:
                row = measure(asked.mode, precision, int(batch), asked.image_size, asked.device, asked.seconds)
            except Exception as error:  # one case that fails leaves the others
                failed = True
                row = {"mode": asked.mode, "precision": precision, "batch_size": int(batch),
                       "error": (str(error).splitlines() or [repr(error)])[0][:200]}
            print(json.dumps(row), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

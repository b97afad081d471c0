#!/usr/bin/env python3
"""What several GPUs can be expected to reach, by arithmetic: the backward pass of ResNet-50 layer by layer, its gradients in
buckets, and NCCL's own cost model for rings and trees. Prints the tables of docs/scaling.md.

    tools/scaling_model.py

Latencies: NCCL 2.2x, src/graph/tuning.cc (base, and by link, in microseconds, of the protocols LL and Simple). LL moves 8 bytes
for 4 of data. A step is 1/3 forward and 2/3 backward; a layer's share of either is the mean of its share of the multiplications
and of its share of the memory traffic.
"""
import math
from dataclasses import dataclass


def layers(classes):
    """(parameters, multiplications a picture, output elements a picture), from the first layer to the last."""
    found = [(64 * 3 * 49 + 128, 64 * 3 * 49 * 112**2, 64 * 112**2)]
    inputs, side = 64, 56
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            step = stride if block == 0 else 1
            out = side // step
            convs = [(inputs, width, 1, side), (width, width, 3, out), (width, 4 * width, 1, out)]
            if block == 0:
                convs.append((inputs, 4 * width, 1, out))
            for c, k, kernel, to in convs:
                found.append((c * k * kernel**2 + 2 * k, c * k * kernel**2 * to**2, k * to**2))
            inputs, side = 4 * width, out
    return found + [(2048 * classes + classes, 2048 * classes, classes)]


def backward_shares(net):
    """Which part of the backward pass each layer takes."""
    products, traffic = sum(l[1] for l in net), sum(l[2] for l in net)
    return [(l[1] / products + l[2] / traffic) / 2 for l in net]


@dataclass
class Cluster:
    nodes: int
    gpus: int  # a node
    link: float  # bytes/s that one GPU sends to its neighbour in the node
    net: float  # bytes/s that one node sends to the next, all its adapters together; they carry the rings side by side
    hop: tuple  # (LL, Simple) seconds from GPU to GPU in a node, (ring)
    sms: float  # part of the GPU that the collectives' blocks take from the backward pass meanwhile

    @property
    def ranks(self):
        return self.nodes * self.gpus

    @property
    def bandwidth(self):
        return self.link if self.nodes == 1 else min(self.link, self.net)


NET = {"ring": (2.7e-6, 14e-6), "tree": (5.0e-6, 14e-6)}
BASE = {"ring": (6.6e-6, 8.4e-6), "tree": (6.8e-6, 8.4e-6)}
LAUNCH = 5e-6  # of one collective on a stream
AGREE = 30e-6  # after each step the hosts add up a few numbers: two copies, and a host that wakes up


def all_reduce(cluster, size):
    """Seconds for `size` bytes: the best of ring and tree, LL and Simple, as NCCL chooses."""
    r, n, g = cluster.ranks, cluster.nodes, cluster.gpus
    best = math.inf
    for protocol, efficiency in ((0, 0.4), (1, 1.0)):
        inter = 2 * (n - 1) if n > 1 else 0
        ring = BASE["ring"][protocol] + (2 * (r - 1) - inter) * cluster.hop[protocol] + inter * NET["ring"][protocol]
        best = min(best, ring + 2 * (r - 1) / r * size / (efficiency * cluster.bandwidth))
        tree = BASE["tree"][protocol] + 2 * ((g - 1) * cluster.hop[protocol] + math.log2(n) * NET["tree"][protocol])
        best = min(best, tree + 2 * size / (0.9 * efficiency * cluster.bandwidth))
    return LAUNCH + best


def agreement(cluster):
    """Seconds until the hosts have the sum that they agree by after each step (agreement.cpp): it stands behind the step's
    averages, and the next step computes meanwhile, whose first average comes later."""
    return AGREE + all_reduce(cluster, (8 + cluster.ranks) * 8)


def cuts(net, wire, bucket):
    """After which layers of the backward pass a bucket is closed, as bucket_bounds() does (averaging.cpp): the first at a 16th
    of the size, the last holds no more than that."""
    small, begins, at = bucket / 16, [], 0
    for parameters, _, _ in net:
        begins.append(at * wire)
        at += parameters
    last = max(begin for begin in begins if begin <= small)
    closed, end, wanted = set(), at * wire, small
    for layer in range(len(net) - 1, 0, -1):
        if begins[layer] == last or (begins[layer] > last and end - begins[layer] >= wanted):
            closed.add(layer)
            end, wanted = begins[layer], bucket
    return closed


def efficiency(cluster, rate, batch, wire, bucket, classes, overlap=True):
    """Speed of a step beside one without any collective. rate: images/s of one GPU; wire: bytes a gradient."""
    net, step = layers(classes), batch / rate
    backward, shares = 2 / 3 * step, backward_shares(net)
    closed = cuts(net, wire, bucket) if overlap else set()
    now, free, held = step / 3, 0.0, 0.0
    for layer in range(len(net) - 1, -1, -1):
        parameters, share = net[layer][0], shares[layer]
        # While a collective runs, the layer has fewer multiprocessors.
        start, work = now, share * backward
        slow = min(max(free - start, 0) * (1 - cluster.sms), work)
        now = start + slow / (1 - cluster.sms) + (work - slow)
        held += parameters * wire
        if layer in closed:
            free = max(free, now) + all_reduce(cluster, held)
            held = 0.0
    if held > 0:
        free = max(free, now) + all_reduce(cluster, held)
    return step / max(now, free)


def row(*cells):
    print("| " + " | ".join(str(c) for c in cells) + " |")


def percent(value):
    return f"{100 * value:.1f}"


def two_4090(gigabytes):
    return Cluster(1, 2, gigabytes * 1e9, 0, (1.0e-6, 5.7e-6), 4 / 128)


def h200(nodes, adapters):
    return Cluster(nodes, 8, 360e9, adapters, (0.6e-6, 3.4e-6), 16 / 132)


def main():
    net = layers(200)
    total = sum(l[0] for l in net)
    print(f"{total / 1e6:.2f} million gradients (200 classes)\n\nWhen they are there:\n")
    row("part of the backward pass done", *[f"{p}%" for p in (5, 10, 20, 30, 50, 70, 100)])
    row(*["---"] * 8)
    cells = []
    for part in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.001):
        done = seen = 0
        for (parameters, _, _), share in zip(reversed(net), reversed(backward_shares(net))):
            done += share
            if done <= part:
                seen += parameters
        cells.append(f"{100 * seen / total:.0f}%")
    row("part of the gradients", *cells)

    print("\nTwo RTX 4090, 1,776 images/s each, batch 64:\n")
    sizes = (4, 8, 16, 25)
    row("GB/s between them", *[f"{wire}, {how}" for wire in ("fp32", "fp16")
                               for how in ("no overlap", *(f"{size} MB" for size in sizes))])
    row(*["---"] * 11)
    for speed in (5, 10, 15, 20):
        row(speed, *[percent(efficiency(two_4090(speed), 1776, 64, wire, bucket, 200, overlap)) + "%"
                     for wire in (4, 2)
                     for overlap, bucket in ((False, 1), *((True, size * 1e6) for size in sizes))])

    for name, adapters in (("eight adapters of 400 Gb/s", 8 * 48e9), ("one adapter of 100 Gb/s", 12e9)):
        print(f"\nNodes of eight H200, {name}, 7,953 images/s a GPU, fp16 on the wire, buckets of 16 MB:\n")
        row("nodes", "GPUs", "all-reduce of 48 MB", "agreement", *[f"batch {b}" for b in (64, 128, 256)],
            "no overlap, batch 64", "best bucket, batch 64")
        row(*["---"] * 9)
        for nodes in (1, 8, 32, 128, 512, 1024):
            cluster = h200(nodes, adapters)
            best = max((efficiency(cluster, 7953, 64, 2, b * 1e6, 200), b) for b in (1, 2, 4, 8, 16, 25, 50))
            row(nodes, nodes * 8, f"{1e3 * all_reduce(cluster, total * 2):.2f} ms", f"{1e3 * agreement(cluster):.2f} ms",
                *[percent(efficiency(cluster, 7953, batch, 2, 16e6, 200)) + "%" for batch in (64, 128, 256)],
                percent(efficiency(cluster, 7953, 64, 2, 1, 200, False)) + "%", f"{percent(best[0])}% ({best[1]} MB)")

    print("\nSyncBatchNorm, 53 norms, a small collective forward and one backward, none hidden:\n")
    row("", "ms a step", "of a step at batch 64", "at batch 256")
    row(*["---"] * 4)
    for name, cluster, rate in (("two RTX 4090", two_4090(10), 1776), ("one node of eight H200", h200(1, 0), 7953),
                                ("8 nodes", h200(8, 8 * 48e9), 7953), ("128 nodes", h200(128, 8 * 48e9), 7953)):
        seconds = 2 * 53 * all_reduce(cluster, 2 * 1024 * 4)
        row(name, f"{1e3 * seconds:.1f}", *[percent(seconds * rate / batch) + "%" for batch in (64, 256)])


if __name__ == "__main__":
    main()

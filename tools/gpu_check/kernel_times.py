#!/usr/bin/env python3
"""Sums up the time of each kernel in what ncu wrote: kernel_times.py FILE (ncu --csv --metrics gpu__time_duration.sum)."""
import collections
import csv
import re
import sys

NANOSECONDS = {"ns": 1, "nsecond": 1, "us": 1e3, "usecond": 1e3, "ms": 1e6, "msecond": 1e6, "s": 1e9, "second": 1e9}


def main():
    with open(sys.argv[1]) as file:
        rows = [line for line in file if line.startswith('"')]
    times, calls = collections.Counter(), collections.Counter()
    for row in csv.DictReader(rows):
        if row.get("Metric Name") != "gpu__time_duration.sum":
            continue
        name = re.sub(r"\(anonymous namespace\)::|<unnamed>::|^void ", "", row["Kernel Name"])
        name = re.sub(r"[<(].*", "", name)[:60]
        times[name] += float(row["Metric Value"].replace(",", "")) * NANOSECONDS[row["Metric Unit"]]
        calls[name] += 1
    total = sum(times.values())
    for name, value in times.most_common(25):
        print(f"  {name:60} {calls[name]:6} calls {value / 1e6:9.3f} ms {100 * value / total:5.1f}%")
    return 0 if times else 1


if __name__ == "__main__":
    sys.exit(main())

"""Cost of attention distances, measured on random weights. Not collected by pytest; run by hand on
a quiet machine:

    python tests/benchmarks/bench_attention.py [--only time|memory] [--pairs 5]

Time: forward passes of ViT-B/16 in batches of 8, bare and with the probe, in alternating pairs,
also on 1025 tokens. The forward passes run on the threads of torch alone; GOMP_SPINCOUNT keeps idle
ones off the core. Memory: peak of a fresh process over a number of batches, against the same
without the probe.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from contextlib import nullcontext

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import timm
import torch

from probe.models.attention import AttentionProbe

CASES = {
    "vit_base_patch16_224, batch 8": ("vit_base_patch16_224", 224, 8),
    "vit_base_patch16_224 at 512 pixels (1025 tokens), batch 2": ("vit_base_patch16_224", 512, 2),
}


def forward(
    module: torch.nn.Module, x: torch.Tensor, batches: int, probe: AttentionProbe | None
) -> float:
    began = time.perf_counter()
    with torch.no_grad(), probe or nullcontext():
        for _ in range(batches):
            if probe is not None:
                probe.begin(len(x), (x.shape[2], x.shape[3]))
            module(x)
    return time.perf_counter() - began


def prepare(case: str) -> tuple[torch.nn.Module, torch.Tensor]:
    name, side, batch = CASES[case]
    return timm.create_model(name, img_size=side).eval(), torch.randn(batch, 3, side, side)


def bench_time(case: str, pairs: int, batches: int) -> None:
    module, x = prepare(case)
    forward(module, x, 1, None)
    forward(module, x, 1, AttentionProbe(module))
    bare, probed = [], []
    for _ in range(pairs):
        bare.append(forward(module, x, batches, None))
        probed.append(forward(module, x, batches, AttentionProbe(module)))
    ratios = ", ".join(f"{b / a:.3f}" for a, b in zip(bare, probed, strict=True))
    times = (
        f"forward {min(bare) / batches:.3f} s, with the probe {min(probed) / batches:.3f} s a batch"
    )
    print(f"{case}: {times}, ratio of the best {min(probed) / min(bare):.3f} (pairs: {ratios})")


def bench_memory(case: str) -> None:
    for batches in (1, 4):
        for what in ("bare", "probe"):
            command = [
                sys.executable,
                __file__,
                "--peak",
                what,
                "--case",
                case,
                "--batches",
                str(batches),
            ]
            peaks = [
                int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                for _ in range(3)
            ]
            print(
                f"{case}: {batches} batches, {what}, peak {min(peaks)} MB (of "
                f"{', '.join(map(str, peaks))})"
            )


def peak(case: str, what: str, batches: int) -> None:
    module, x = prepare(case)
    forward(module, x, batches, AttentionProbe(module) if what == "probe" else None)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["time", "memory"])
    parser.add_argument("--case", choices=list(CASES))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--peak", choices=["bare", "probe"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        peak(options.case, options.peak, options.batches)
        return
    for case in [options.case] if options.case else CASES:
        if options.only in (None, "time"):
            bench_time(case, options.pairs, options.batches)
        if options.only in (None, "memory"):
            bench_memory(case)


if __name__ == "__main__":
    main()

"""What capture costs beside the bare forward pass: time, memory, disk. Run by hand, on a quiet
machine:

    python tests/benchmarks/bench_capture.py vit_base_patch16_224 resnet50

Time: 64 images of noise in batches of 8, samples=256, store included; alternating pairs, the best
of each. Random weights: the cost does not depend on them. Memory: peak of a fresh process with 64
and with 256 images, the least of three, as the allocator's own spread is about 100 MB. Disk: a
default run (samples=512).
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# before torch, as the command line does; it holds for the bare forward pass too
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

from probe.jobs.capturing.capture import capture
from probe.models.loading.load import Model, load_model


def forward(module: torch.nn.Module, batches: list[torch.Tensor]) -> float:
    began = time.perf_counter()
    with torch.no_grad():
        for batch in batches:
            module(batch)
    return time.perf_counter() - began


def captured(model: Model, batches: list[torch.Tensor], out: Path, samples: int) -> float:
    began = time.perf_counter()
    capture(model, batches, out=out, samples=samples, overwrite=True)
    return time.perf_counter() - began


def prepare(name: str, images: int) -> tuple[Model, list[torch.Tensor]]:
    model = load_model(name, weights="random", device="cpu")
    return model, list(
        torch.randn(images, 3, 224, 224, generator=torch.Generator().manual_seed(0)).split(8)
    )


def bench_time(name: str, out: Path, pairs: int) -> None:
    model, batches = prepare(name, 64)
    forward(model.module, batches[:1])
    captured(model, batches[:1], out, 256)  # compiles the kernels or loads them from the cache
    bare, full = [], []
    for _ in range(pairs):
        bare.append(forward(model.module, batches))
        full.append(captured(model, batches, out, 256))
    ratios = ", ".join(f"{b / a:.3f}" for a, b in zip(bare, full, strict=True))
    times = f"forward {min(bare):.2f} s, capture {min(full):.2f} s"
    print(f"{name}: {times}, ratio of the best {min(full) / min(bare):.3f} (pairs: {ratios})")


def bench_memory(name: str, out: Path) -> None:
    for images in (64, 256):
        command = [sys.executable, __file__, name, "--peak", str(images), "--out", str(out)]
        peaks = [
            int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(3)
        ]
        print(f"{name}: {images} images, peak {min(peaks)} MB (of {', '.join(map(str, peaks))})")


def peak(name: str, images: int, out: Path) -> None:
    """Batches are made on the fly, so that only what capture keeps can grow with their number."""
    model, _ = prepare(name, 0)
    rng = torch.Generator().manual_seed(0)
    capture(
        model,
        (torch.randn(8, 3, 224, 224, generator=rng) for _ in range(images // 8)),
        out=out,
        overwrite=True,
    )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def bench_disk(name: str, out: Path) -> None:
    model, batches = prepare(name, 64)
    run = capture(model, batches, out=out, overwrite=True)
    size = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    print(f"{name}: default run {size / 1e6:.0f} MB on disk")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=["vit_base_patch16_224", "resnet50"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", choices=["time", "memory", "disk"])
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.out or Path(tempfile.mkdtemp())
    for name in options.models:
        if options.peak:
            peak(name, options.peak, folder / "run")
            continue
        for what, job in (
            ("time", lambda n, o: bench_time(n, o, options.pairs)),
            ("memory", bench_memory),
            ("disk", bench_disk),
        ):
            if options.only in (None, what):
                job(name, folder / "run" if what != "memory" else folder)
    if not options.out:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

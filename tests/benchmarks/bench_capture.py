"""What capture costs beside the bare forward pass: time, memory, disk. Run by hand, on a quiet
machine:

    python tests/benchmarks/bench_capture.py vit_base_patch16_224 resnet50

Time: noise in batches of 8, store included; rounds of forward pass and capture over 64 and over
256 images, in turn. Printed are the ratio of a whole run of 64 images, and what each further image
costs (the slope between 64 and 256 images), from the best of each, with the spread over rounds; and
the same as a line of JSON. Random weights: the cost does not depend on them. Memory: peak of a
fresh process with 64, 256 and 512 images and of the bare forward pass, the least of three, as the
allocator's own spread is about 100 MB. Disk: a default run.
"""

from __future__ import annotations

import argparse
import json
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

import numpy as np
import torch
from numpy.typing import NDArray

from probe.jobs.capturing.capture import capture
from probe.models.loading.load import Model, load_model

FEW, MANY = 64, 256  # images
Batches = list[torch.Tensor]


def forward(module: torch.nn.Module, batches: Batches) -> float:
    began = time.perf_counter()
    with torch.no_grad():
        for batch in batches:
            module(batch)
    return time.perf_counter() - began


def captured(model: Model, batches: Batches, out: Path, attention: bool) -> float:
    """A new run: to delete one that is replaced takes time, too, and is not what is measured."""
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    capture(model, batches, out=out, attention=attention)
    return time.perf_counter() - began


def prepare(name: str, images: int) -> tuple[Model, Batches]:
    model = load_model(name, weights="random", device="cpu")
    rng = torch.Generator().manual_seed(0)
    return model, [torch.randn(8, 3, 224, 224, generator=rng) for _ in range(images // 8)]


def bench_time(name: str, out: Path, rounds: int, attention: bool) -> None:
    model, many = prepare(name, MANY)
    few = many[: FEW // 8]
    forward(model.module, many[:1])
    captured(model, many[:1], out, attention)  # compiles the kernels or loads them from the cache
    times = np.array(
        [
            [
                forward(model.module, few),
                captured(model, few, out, attention),
                forward(model.module, many),
                captured(model, many, out, attention),
            ]
            for _ in range(rounds)
        ]
    )
    ratio, slope = ratios(times.min(axis=0))
    by_round = np.array([ratios(row) for row in times])
    forward_ms, capture_ms = (
        1000 * np.diff(times.min(axis=0).reshape(2, 2), axis=0)[0] / (MANY - FEW)
    )
    print(
        f"{name}{', with attention' if attention else ''}: {FEW} images {ratio:.3f} "
        f"({spread(by_round[:, 0])}), each further image {slope:.3f} ({spread(by_round[:, 1])}): "
        f"{forward_ms:.1f} ms forward pass, {capture_ms:.1f} ms with capture; {rounds} rounds"
    )
    record = {"model": name, "attention": attention, "ratio": ratio, "slope": slope}
    machine = {
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    print(json.dumps({**record, "seconds": times.round(3).tolist(), **machine}))


def ratios(times: NDArray) -> tuple[float, float]:
    """Of FEW images, and of each image between FEW and MANY; times: forward pass and capture of
    FEW, then of MANY.
    """
    bare, full, bare_many, full_many = times
    return float(full / bare), float((full_many - full) / (bare_many - bare))


def spread(values: NDArray) -> str:
    return f"rounds {values.min():.3f} to {values.max():.3f}, median {np.median(values):.3f}"


def bench_memory(name: str, out: Path) -> None:
    for images in (0, FEW, MANY, 512):
        command = [sys.executable, __file__, name, "--peak", str(images), "--out", str(out)]
        peaks = [
            int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(3)
        ]
        what = f"{images} images" if images else "forward pass alone"
        print(f"{name}: {what}, peak {min(peaks)} MB (of {', '.join(map(str, peaks))})")


def peak(name: str, images: int, out: Path) -> None:
    """Batches are made on the fly, so that only what capture keeps can grow with their number."""
    model, _ = prepare(name, 0)
    rng = torch.Generator().manual_seed(0)
    if images:
        capture(
            model,
            (torch.randn(8, 3, 224, 224, generator=rng) for _ in range(images // 8)),
            out=out,
            overwrite=True,
        )
    else:
        forward(model.module, [torch.randn(8, 3, 224, 224, generator=rng) for _ in range(4)])
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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--attention", action="store_true", help="read attention distances, too")
    parser.add_argument("--only", choices=["time", "memory", "disk"])
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.out or Path(tempfile.mkdtemp())
    for name in options.models:
        if options.peak is not None:
            peak(name, options.peak, folder / "run")
            continue
        for what, job in (
            ("time", lambda n, o: bench_time(n, o, options.rounds, options.attention)),
            ("memory", bench_memory),
            ("disk", bench_disk),
        ):
            if options.only in (None, what):
                job(name, folder / "run" if what != "memory" else folder)
    if not options.out:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

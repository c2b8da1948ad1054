"""What capture costs on a CUDA device beside the bare forward pass. One command on any of them:

    python tests/benchmarks/bench_gpu.py

First the statistics of the device are held against float64 on the host, and samples and tail
against those of the CPU, for each way to normalize and dtype; then for each model, dtype, batch
size, and eager or compiled: rounds of a few bare forward passes and as many under the hooks of a
capture, in turn, both from images that lie on the device. What the layers leave there is fetched
and counted within the time of a round, the last pass of it too.
`compiled` is the bare pass alone: a capture runs the module behind torch.compile, as hooks are not
part of compiled code, so there the ratio holds what compiling gains, too.
Printed are the ratio of the medians with its spread over rounds, and all of it as a line of JSON.
The store is left out: it does not run on the device (`bench_capture.py` has it). Random weights:
the cost does not depend on them. The first batches, which compile kernels and begin the tails, are
not timed; the profiles, which stay on the device until the end of a run, are fetched after the last
round, and timed apart. `waits` is how often torch reports that the host waited for the device in
one more pass (`torch.cuda.set_sync_debug_mode`; it does not see every way to wait): none is right.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from gpu_check import GROUPS, check
from probe.errors import first_line
from probe.jobs.capturing.forward import forward
from probe.jobs.capturing.worker import Worker
from probe.jobs.image_batches import Inputs
from probe.models.loading.load import load_model
from probe.models.reading.layers import list_norm_layers
from probe.records import Plan
from probe.stats.device_summary import runs_on

WARM_UP = 3  # batches
IN_A_ROW = 4  # batches of a round


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=["vit_base_patch16_224", "resnet50"])
    parser.add_argument("--batches", type=int, nargs="*", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured")
        return
    device = torch.device("cuda")
    print(json.dumps(machine(device)))
    if not check(device):
        sys.exit("the statistics of this device differ from float64: see above")
    for name in options.models:
        for dtype in (torch.float32, torch.bfloat16):
            for batch_size in options.batches:
                for compiled in (False, True):
                    report(name, dtype, batch_size, compiled, options.rounds)


def machine(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": properties.name,
        "capability": [properties.major, properties.minor],
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "backend": "triton" if runs_on(device) else "torch",
    }


def report(name: str, dtype: torch.dtype, batch_size: int, compiled: bool, rounds: int) -> None:
    what = f"{name}, {dtype}, batch {batch_size}, {'compiled' if compiled else 'eager'}"
    try:
        record = timed(name, dtype, batch_size, compiled, rounds)
    except RuntimeError as error:  # no memory, or the compiler of torch
        torch.cuda.empty_cache()
        print(f"{what}: not measured: {first_line(error)}")
        return
    bare, full = (np.array(record[part]) for part in ("bare_ms", "capture_ms"))
    ratios = full / bare
    print(
        f"{what}: {np.median(full) / np.median(bare):.3f} (rounds {ratios.min():.3f} to "
        f"{ratios.max():.3f}): {np.median(bare):.2f} ms forward pass, {np.median(full):.2f} ms "
        f"with capture of {record['layers']} layers; {record['fetch_ms']:.0f} ms once at the end; "
        f"{record['waits']} waits"
    )
    of = {"model": name, "dtype": str(dtype), "batch": batch_size, "compiled": compiled}
    print(json.dumps(of | record))


def timed(
    name: str,
    dtype: torch.dtype,
    batch_size: int,
    compiled: bool,
    rounds: int,
    device: str = "cuda",
) -> dict[str, Any]:
    """Milliseconds per batch of each round: bare forward passes, then those of a second copy of the
    model under the hooks.
    """
    bare_model, model = (
        load_model(name, weights="random", device=device, dtype=dtype) for _ in range(2)
    )
    if compiled:
        bare_model = replace(bare_model, module=torch.compile(bare_model.module))
    rng = torch.Generator(device).manual_seed(0)
    images = torch.randn(batch_size, 3, 224, 224, generator=rng, device=device).to(dtype)
    total = (WARM_UP + 1 + rounds * IN_A_ROW) * batch_size
    batches = [
        Inputs((images,), {}, numbers, numbers % GROUPS)
        for numbers in np.arange(total).reshape(-1, batch_size)
    ]
    bare, full = [], []
    with Worker(model, Plan(images=total)) as worker:

        def capture(some: list[Inputs]) -> None:
            for batch in some:
                worker.update(batch)
            worker.settle()

        def run(some: list[Inputs]) -> None:
            for batch in some:
                forward(bare_model, batch)

        for work in (run, capture):
            work(batches[:WARM_UP])
        waits = synchronizations(lambda: worker.update(batches[WARM_UP]))
        for start in range(WARM_UP + 1, len(batches), IN_A_ROW):
            of_round = batches[start : start + IN_A_ROW]
            bare.append(milliseconds(partial(run, of_round)) / IN_A_ROW)
            full.append(milliseconds(partial(capture, of_round)) / IN_A_ROW)
        statistics = [each for _, each in worker.layers(list_norm_layers(model.module)) if each]
        fetch = milliseconds(lambda: [layer.profile.cells for layer in statistics])
    return {
        "bare_ms": np.round(bare, 3).tolist(),
        "capture_ms": np.round(full, 3).tolist(),
        "fetch_ms": round(fetch, 3),
        "layers": len(statistics),
        "waits": waits,
    }


def synchronizations(work: Callable[[], Any]) -> int:
    """How often torch reports that the host waits for the device."""
    if not torch.cuda.is_available():
        work()
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in caught)


def milliseconds(work: Callable[[], Any]) -> float:
    _wait()
    began = time.perf_counter()
    work()
    _wait()
    return 1000 * (time.perf_counter() - began)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

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

from probe.errors import first_line
from probe.jobs.capturing.forward import forward
from probe.jobs.capturing.worker import Worker
from probe.jobs.image_batches import Inputs
from probe.models.loading.load import load_model
from probe.models.reading.layers import list_norm_layers
from probe.records import Plan
from probe.stats.device_summary import runs_on
from probe.stats.layer import LayerStatistics
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm
from probe.stats.samples import RowChoice
from probe.stats.sums import CellSum, ChannelSum

GROUPS = 16
WARM_UP = 3  # batches
IN_A_ROW = 4  # batches of a round
PLAN = Plan(images=40, samples=200, tail=200)  # of the check
ALLOWED = 1e-6  # relative, of means, variances and sums of cells


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


def check(device: torch.device) -> bool:
    """Do means, variances and cells agree with float64, and samples and tail with those of the CPU?
    Prints the largest errors.
    """
    agrees = True
    for dtype in (torch.float32, torch.bfloat16):
        for norm in ("token", "rms", "planes", "given"):
            for mean in (0.0, 1000.0):
                errors = errors_of(norm, mean, dtype, device)
                agrees &= max(errors.values()) < ALLOWED
                told = ", ".join(f"{what} {error:.1e}" for what, error in errors.items())
                print(f"against float64: {norm}, {dtype}, mean {mean:g}: {told}")
    return agrees


def errors_of(norm: str, mean: float, dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """Largest errors of channel means (by sigma), variances, and sums over all cells (by the sum of
    what was added without its sign).
    """
    x, z, observed = observation(norm, mean, dtype, device)
    statistics = counted(observed)
    expected = counted(observation(norm, mean, dtype, torch.device("cpu"))[2])
    sums = statistics.moments.sums
    count = sums[ChannelSum.COUNT]
    errors = {}
    for what, total, squares, values in (
        ("x", ChannelSum.X, ChannelSum.XX, x),
        ("z", ChannelSum.Z, ChannelSum.ZZ, z),
    ):
        got = sums[total] / count
        variance = sums[squares] / count - got**2
        sigma = values.std(axis=(0, 1))
        errors[f"mean of {what}"] = float((abs(got - values.mean(axis=(0, 1))) / sigma).max())
        errors[f"variance of {what}"] = float((abs(variance / sigma**2 - 1)).max())
    cells = statistics.profile.sums.sum(axis=(0, 1, 2))
    products = {CellSum.X: x, CellSum.Z: z, CellSum.XX: x * x, CellSum.ZZ: z * z, CellSum.XZ: x * z}
    errors["cells"] = max(
        float(abs(cells[column] - values.sum()) / abs(values).sum())
        for column, values in products.items()
    )
    errors["count"] = float(abs(cells[CellSum.COUNT] / x.size - 1))
    return errors | sample_errors(statistics, expected)


def counted(observed: Observed) -> LayerStatistics:
    """The batch in two halves, of which the second one meets the bounds that the first one left."""
    statistics = LayerStatistics(PLAN, observed.channels)
    choice = RowChoice(PLAN, observed.kinds)
    for half in halves(observed):
        statistics.update(half, choice)
    return statistics


def halves(observed: Observed) -> list[Observed]:
    middle = len(observed.images) // 2
    return [cut(observed, slice(middle)), cut(observed, slice(middle, None))]


def cut(observed: Observed, images: slice) -> Observed:
    norm = observed.norm
    if isinstance(norm, PlaneNorm):
        norm = PlaneNorm(norm.mean[images], norm.scale[images], norm.fixed)
    elif isinstance(norm, GivenNorm):
        norm = GivenNorm(norm.z[images])
    fields = {name: getattr(observed, name)[images] for name in ("x", "y", "images", "groups")}
    return replace(observed, norm=norm, **fields)


def sample_errors(got: LayerStatistics, expected: LayerStatistics) -> dict[str, float]:
    """0 where rows and elements are the same with the same values; the largest error of their z."""
    rows, others = got.rows(got.uniform), expected.rows(expected.uniform)
    tail, other_tail = got.tail.elements(), expected.tail.elements()
    if len(rows.image) != len(others.image) or len(tail) != len(other_tail):
        return {"samples": 1.0}
    same = [
        np.array_equal(getattr(rows, name), getattr(others, name))
        for name in ("image", "position", "input", "output")
    ] + [
        np.array_equal(tail[name], other_tail[name])
        for name in ("image", "position", "channel", "value", "output")
    ]
    both = (rows.normalized, others.normalized), (tail["normalized"], other_tail["normalized"])
    of_z = max(float((abs(a - b) / (1 + abs(b))).max()) for a, b in both)
    return {"samples": float(not all(same)), "z of samples": of_z}


def observation(
    norm: str, mean: float, dtype: torch.dtype, device: torch.device
) -> tuple[np.ndarray, np.ndarray, Observed]:
    """x and z (B, P, C) in float64 on the host, and what a layer sees of them on the device."""
    images, positions, channels, eps = 40, 197, 384, 1e-6
    rng = torch.Generator().manual_seed(0)
    # steps that bfloat16 can tell at 1000 are 4 wide
    sigma = 20.0 if dtype == torch.bfloat16 and mean else 1.0
    x = (mean + sigma * torch.randn(images, positions, channels, generator=rng)).to(dtype)
    exact = x.double()
    rest: Any = {"images": np.arange(images), "groups": np.arange(images) % GROUPS}
    if norm == "planes":
        var, middle = torch.var_mean(exact, dim=1, correction=0)
        middle, scale = middle.float(), torch.rsqrt(var + eps).float()
        z = (exact - middle.double()[:, None]) * scale.double()[:, None]
        planes = x.to(device).transpose(1, 2).contiguous()
        plane_norm = PlaneNorm(middle.to(device), scale.to(device), fixed=False)
        kinds = np.zeros(positions, np.uint8)
        seen = Observed(planes, planes, plane_norm, channels_last=False, kinds=kinds, **rest)
        return exact.numpy(), z.numpy(), seen
    kinds = (np.arange(positions) == 0).astype(np.uint8)
    there = x.to(device)
    if norm == "given":
        given = torch.tanh(x.float() - mean)
        z, how = given.double(), GivenNorm(given.to(device))
    else:
        centered = norm == "token"
        difference = exact - exact.mean(-1, keepdim=True) * centered
        z = difference / torch.sqrt(difference.square().mean(-1, keepdim=True) + eps)
        how = TokenNorm(eps, centered=centered)
    seen = Observed(there, there, how, channels_last=True, kinds=kinds, **rest)
    return exact.numpy(), z.numpy(), seen


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

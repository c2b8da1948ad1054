"""What capture costs on a CUDA device beside the bare forward pass. One command on any of them:

    python tests/benchmarks/bench_gpu.py

First the statistics of the device are held against float64 on the host, one batch of each way to
normalize and dtype; then for each model, dtype, batch size, and eager or compiled: rounds of a bare
forward pass and one under the hooks of a capture, in turn, both from images that lie on the device.
`compiled` is the bare pass alone: a capture runs the module behind torch.compile, as hooks are not
part of compiled code, so there the ratio holds what compiling gains, too.
Printed are the ratio of the medians with its spread over rounds, and all of it as a line of JSON.
The store is left out: it does not run on the device (`bench_capture.py` has it). Random weights:
the cost does not depend on them. The first batches, which compile kernels and begin the tails, are
not timed; what waits on the device until the end of a run is fetched after the last round, and
timed apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
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
from probe.records import Plan
from probe.stats.batch_summary import Bounds
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm
from probe.stats.profile import Profile
from probe.stats.summary import summarize
from probe.stats.sums import CellSum, ChannelSum
from probe.stats.triton_summary import runs_on

GROUPS = 16
WARM_UP = 3  # batches
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


class NothingOutside:
    """Extremes that nothing lies beyond."""

    most, parts = 50, 0

    def __init__(self, channels: int) -> None:
        ends = np.full(channels, np.inf, np.float32)
        self.bounds: Bounds = (-ends, ends)

    def start(self, *_: Any) -> None:
        pass

    def collect(self, *_: Any) -> None:
        raise AssertionError("nothing lies outside")


def check(device: torch.device) -> bool:
    """Do means, variances and cells agree with float64? Prints the largest errors."""
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
    profile = Profile()
    sums = summarize(observed, profile, NothingOutside(x.shape[2])).sums.sum(axis=0)
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
    cells = profile.sums.sum(axis=(0, 1, 2))
    products = {CellSum.X: x, CellSum.Z: z, CellSum.XX: x * x, CellSum.ZZ: z * z, CellSum.XZ: x * z}
    errors["cells"] = max(
        float(abs(cells[column] - values.sum()) / abs(values).sum())
        for column, values in products.items()
    )
    errors["count"] = float(abs(cells[CellSum.COUNT] / x.size - 1))
    return errors


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
        f"with capture of {record['layers']} layers; {record['fetch_ms']:.0f} ms once at the end"
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
    """Milliseconds of each round: a bare forward pass, then one of a second copy of the model under
    the hooks.
    """
    bare_model, model = (
        load_model(name, weights="random", device=device, dtype=dtype) for _ in range(2)
    )
    if compiled:
        bare_model = replace(bare_model, module=torch.compile(bare_model.module))
    rng = torch.Generator(device).manual_seed(0)
    images = torch.randn(batch_size, 3, 224, 224, generator=rng, device=device).to(dtype)
    total = (WARM_UP + rounds) * batch_size
    bare, full = [], []
    with Worker(model, Plan(images=total)) as worker:
        for numbers in np.arange(total).reshape(-1, batch_size):
            batch = Inputs((images,), {}, numbers, numbers % GROUPS)
            bare.append(milliseconds(partial(forward, bare_model, batch)))
            full.append(milliseconds(partial(worker.update, batch)))
        statistics = list(worker._statistics.values())
        fetch = milliseconds(lambda: [layer.profile.cells for layer in statistics])
    return {
        "bare_ms": np.round(bare[WARM_UP:], 3).tolist(),
        "capture_ms": np.round(full[WARM_UP:], 3).tolist(),
        "fetch_ms": round(fetch, 3),
        "layers": len(statistics),
    }


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

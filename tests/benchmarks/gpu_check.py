"""Are the statistics of a device right? See `bench_gpu.py`, which asks first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from probe.records import Plan
from probe.stats.layer import LayerStatistics
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm
from probe.stats.samples import RowChoice
from probe.stats.sums import CellSum, ChannelSum

GROUPS = 16
PLAN = Plan(images=40, samples=200, tail=200)
ALLOWED = 1e-6  # relative, of means, variances and sums of cells


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

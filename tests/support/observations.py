"""Batches as a norm layer sees them, for the statistics' tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from probe.stats.batch_summary import BatchSummary, Bounds, Extremes, Reduced
from probe.stats.device_batch import DeviceBatch
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm
from probe.stats.profile import Profile
from probe.stats.samples import CandidateRows
from probe.stats.transfer import Transfer

Reduce = Callable[[Observed, Bounds, int], Reduced]

NORMS = ("token", "rms", "planes", "lines", "given")


def tokens(images: int, positions: int, channels: int, seed: int = 0) -> Tensor:
    """LayerNorm-like input (B, P, C): tokens of different scale, one massive channel, exact
    zeros.
    """
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(images, positions, channels, generator=rng) * torch.rand(
        images, positions, 1, generator=rng
    )
    x[..., 1] *= 40
    x[:, ::7, 2] = 0
    return x


def observed(
    x: Tensor, norm: str, first: int = 0, prefix: int = 1, valid: np.ndarray | None = None
) -> Observed:
    """An observation of x (B, P, C), normalized in one of the ways of NORMS; `planes` and `lines`
    lay it out (B, C, P).
    """
    images = np.arange(first, first + len(x))
    kinds = np.zeros(x.shape[1], np.uint8)
    kinds[:prefix] = 1
    if norm in ("planes", "lines"):
        mean, scale = (
            torch.linspace(-1, 1, x.shape[2])[None],
            torch.linspace(0.5, 2, x.shape[2])[None],
        )
        z = (x - mean) * scale
        plane = PlaneNorm(mean, scale, fixed=norm == "lines")
        return Observed(
            x.transpose(1, 2),
            (z + 1).transpose(1, 2),
            plane,
            False,
            images,
            images % 16,
            np.zeros_like(kinds),
            valid,
        )
    if norm == "given":
        return Observed(
            x, torch.tanh(x) + 1, GivenNorm(torch.tanh(x)), True, images, images % 16, kinds, valid
        )
    kind = TokenNorm(1e-6, centered=norm == "token")
    return Observed(
        x, reference_z(x, kind).float() + 1, kind, True, images, images % 16, kinds, valid
    )


def reference_z(x: Tensor, kind: TokenNorm) -> Tensor:
    """z in float64 by the formula."""
    x = x.double()
    mean = x.mean(-1, keepdim=True) if kind.centered else 0.0
    return (x - mean) / torch.sqrt((x - mean).square().mean(-1, keepdim=True) + kind.eps)


def as_on_a_device(reduce: Reduce, monkeypatch) -> None:
    """Have tensors of the CPU taken for those of a device, whose batches `reduce` reduces."""
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)
    monkeypatch.setattr("probe.stats.layer.reduce", reduce)


def by_device(reduce: Reduce) -> Callable[..., BatchSummary]:
    """`summary.summarize` by way of a device: what is reduced there, all images as if they were
    one, and fetched."""

    def summarize(o: Observed, profile: Profile, extremes: Extremes) -> BatchSummary:
        bounds = extremes.bounds
        reduced = reduce(o, bounds, extremes.most)
        profile.add_later(reduced.cells, torch.from_numpy(reduced.groups))
        nothing = np.empty(0, np.int64)
        rows = CandidateRows(nothing, nothing, nothing.astype(np.uint64), 0)
        batch = DeviceBatch(o, reduced, rows, bounds)
        arrays = fetched(batch.tensors)
        arrays |= fetched(batch.rest(arrays))
        elements = batch.elements(arrays, bounds)
        if len(elements):
            where = (elements[name] for name in ("image", "position", "channel"))
            extremes.collect(elements["value"], *where)
        summary = batch.summary(arrays)
        means = None if summary.sigmas is None else reduced.means.numpy()
        return replace(summary, means=means)

    return summarize


def fetched(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return dict(zip(tensors, Transfer(list(tensors.values())).arrays(), strict=True))


SAMPLE_COLUMNS = ("image", "position", "input", "normalized", "output", "mean", "sigma")


def assert_same_samples(got, expected):
    """Two LayerStatistics hold the same rows and the same tail, to the bit."""
    for name in ("uniform", "prefix"):
        rows, others = (each.rows(getattr(each, name)) for each in (got, expected))
        for column in SAMPLE_COLUMNS:
            here, there = getattr(rows, column), getattr(others, column)
            assert here is there is None or here.tobytes() == there.tobytes(), column
    assert got.tail.elements().tobytes() == expected.tail.elements().tobytes()

"""Batches as a norm layer sees them, for the statistics' tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from probe.stats.batch_summary import BatchSummary
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm

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


def reduce_by(backend: Callable[..., BatchSummary], monkeypatch) -> None:
    """Have the accumulators of layers reduce their batches by the `summarize` of a device."""

    def summarize(*batch, meanwhile):
        summary = backend(*batch)
        meanwhile()
        return summary

    monkeypatch.setattr("probe.stats.layer.summarize", summarize)


SAMPLE_COLUMNS = ("image", "position", "input", "normalized", "output", "mean", "sigma")


def assert_same_samples(got, expected):
    """Two LayerStatistics hold the same rows and the same tail, to the bit."""
    for name in ("uniform", "prefix"):
        rows, others = (each.rows(getattr(each, name)) for each in (got, expected))
        for column in SAMPLE_COLUMNS:
            here, there = getattr(rows, column), getattr(others, column)
            assert here is there is None or here.tobytes() == there.tobytes(), column
    assert got.tail.elements().tobytes() == expected.tail.elements().tobytes()

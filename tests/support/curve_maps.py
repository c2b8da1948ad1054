"""Synthetic maps with known answers, and the brute-force fits they are held against."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from probe.bins import bin_of
from probe.curves import BinnedMap, family_of
from probe.records import GROUPS

Values = NDArray[np.float64]


def in_bins(x: Values, z: Values, group: NDArray[np.int64] | None = None) -> BinnedMap:
    """The map of elements x, z (any shape, x exactly float32), binned as a profile bins it."""
    x, z = np.asarray(x, dtype=np.float64).ravel(), np.asarray(z, dtype=np.float64).ravel()
    group = np.arange(len(x)) % GROUPS if group is None else np.asarray(group).ravel()
    kept, column = np.unique(bin_of(x), return_inverse=True)
    cell = group * len(kept) + column
    sums = [
        np.bincount(cell, each, GROUPS * len(kept)).reshape(GROUPS, -1)
        for each in (np.ones_like(x), x, z, z * z, x * x, x * z)
    ]
    return BinnedMap(kept, *sums, min_x=float(x.min()), max_x=float(x.max()))


def profile_rows(binned: BinnedMap, tokens: str = "patch") -> pd.DataFrame:
    """The PROFILE rows that such a map comes from."""
    g, k = np.nonzero(binned.count)
    names = (
        "count",
        "sum_input",
        "sum_normalized",
        "sum_normalized_sq",
        "sum_input_sq",
        "sum_product",
    )
    sums = (binned.count, binned.sum_x, binned.sum_z, binned.sum_zz, binned.sum_xx, binned.sum_xz)
    return pd.DataFrame(
        {
            "layer": "norm",
            "tokens": tokens,
            "group": g.astype(np.int16),
            "bin": binned.bin[k].astype(np.int16),
        }
        | {name: each[g, k] for name, each in zip(names, sums, strict=True)}
    )


def normal_inputs(n: int = 60_000, seed: int = 0, scale: float = 1.0) -> Values:
    """Gaussian inputs, exactly float32."""
    return (np.random.default_rng(seed).normal(0, scale, n)).astype(np.float32).astype(np.float64)


def tokens_through_norm(
    seed: int, tokens: int = 800, channels: int = 96, center: bool = True
) -> tuple[Values, Values, NDArray[np.int64]]:
    """Tokens with a few large channels and a spread of scales through LayerNorm (RMSNorm without
    `center`): x, z, image group.
    """
    random = np.random.default_rng(seed)
    scale = np.exp(random.normal(0, 0.5, channels))
    scale[:3] *= 15
    x = random.normal(0, 1, (tokens, channels)) * scale * np.exp(random.normal(0, 0.4, (tokens, 1)))
    x = x.astype(np.float32).astype(np.float64)
    mean = x.mean(axis=1, keepdims=True) if center else 0.0
    z = (x - mean) / np.sqrt(((x - mean) ** 2).mean(axis=1, keepdims=True) + 1e-6)
    return x, z, np.broadcast_to(np.arange(tokens)[:, None] * GROUPS // tokens, x.shape)


def brute_force(
    family: str, x: Values, z: Values, around: float
) -> tuple[float, float, float, float]:
    """alpha, gamma, beta, R2 of least squares over all elements in float64, by Brent's method
    around a guess of alpha.
    """
    x, z = x.ravel(), z.ravel()
    curve, centered = family_of(family), z - z.mean()

    def closed(t: float) -> tuple[float, float, float]:
        f = curve.value(np.exp(t) * x)
        d = f - f.mean()
        gamma = (d @ centered) / (d @ d)
        rest = centered - gamma * d
        return float(rest @ rest), float(gamma), float(z.mean() - gamma * f.mean())

    t = np.log(around)
    found = minimize_scalar(lambda t: closed(t)[0], bracket=(t - 0.2, t, t + 0.2), tol=1e-9).x
    loss, gamma, beta = closed(found)
    return float(np.exp(found)), gamma, beta, 1 - loss / float(centered @ centered)

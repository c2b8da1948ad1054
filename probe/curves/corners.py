"""The exact optimum of hardtanh, whose corners make a shallow minimum of every point they pass.

With the points in the order of |x|, a corner at 1 / alpha between two neighbours leaves j points
inside, where the curve is alpha x, and the others outside, where it is their sign s. There

    C(f, f) = a alpha^2 + 2 b alpha + c        a, b, c, p, q sums over the inside and the outside
    C(f, z) = p alpha + q                      loss = C(z, z) - C(f, z)^2 / C(f, f)

has one stationary point, alpha = (q b - p c) / (p b - q a). The best of these and of the ends of
their intervals is the optimum over all alpha: no search, and no start to depend on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TINY = np.finfo(float).tiny


def hardtanh_optimum(x: Floats, w: Floats, z: Floats, lower: float, upper: float) -> Floats:
    """log alpha of the least loss between two bounds (B,); x (K,), weights w of sum 1 and z (B,
    K).
    """
    order = np.argsort(np.abs(x), kind="stable")
    x, w, z = x[order], w[:, order], z[:, order]
    a, b, c, p, q = _covariances(x, w, z - np.vecdot(w, z)[:, None])
    low, high = np.broadcast_arrays(*_intervals(np.abs(x), np.exp(lower), np.exp(upper)), p)[:2]
    steep = p * b - q * a
    rest = np.divide(q * b - p * c, steep, out=np.ones_like(p), where=steep != 0)
    alpha = np.concatenate([np.clip(rest, low, high), low, high], axis=1)
    a, b, c, p, q = (np.tile(each, 3) for each in (a, b, c, p, q))
    shared, variance = p * alpha + q, (a * alpha + 2 * b) * alpha + c
    explained = shared * shared / np.maximum(variance, _TINY)
    best = np.where(np.tile(high > low, 3), explained, -1).argmax(axis=1)
    return np.log(np.take_along_axis(alpha, best[:, None], axis=1)[:, 0])


def _covariances(x: Floats, w: Floats, z: Floats) -> tuple[Floats, ...]:
    """a, b, c, p, q (B, K + 1), the j-th with j points inside; z has mean 0."""
    sign = np.sign(x)
    first, square, cross = (_first(w * each) for each in (x, x * x, x * z))
    number, signs, signed = (_others(w * each) for each in (sign * sign, sign, sign * z))
    return square - first * first, -first * signs, number - signs * signs, cross, signed


def _first(values: Floats) -> Floats:
    """Sums of the first j values, j = 0 .. K."""
    sums = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def _others(values: Floats) -> Floats:
    """Sums of all but the first j values, j = 0 .. K."""
    return _first(values[:, ::-1])[:, ::-1]


def _intervals(size: Floats, least: float, most: float) -> tuple[Floats, Floats]:
    """The alphas (K + 1,) that leave j points inside."""
    reach = np.divide(1, size, out=np.full(len(size), np.inf), where=size > 0)
    ends = np.clip(np.concatenate([[np.inf], reach, [0]]), least, most)
    return ends[1:], ends[:-1]

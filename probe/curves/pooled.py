"""The line over all channels of a layer that is itself a line in every channel (BatchNorm with
running statistics).

z = slope_c x + offset_c in channel c, so the exact moments of x per channel give those of z and of
both together; nothing is fitted. The pooled line is a mixture of channels and stands for none of
them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from probe.bins import bin_of
from probe.records import Fit, Status

Floats = NDArray[np.float64]


def sampled_median_abs(x: NDArray[np.floating]) -> float:
    """Median of |x| over sampled elements (any shape); NaN without any."""
    return float(np.median(np.abs(x))) if x.size else math.nan


def sampled_ceiling(x: NDArray[np.floating], z: NDArray[np.floating]) -> float:
    """Share of the variance of z that any one curve of x could explain, from sampled elements x, z
    (any shape): that between bins of x, less what chance gives so many bins. NaN where z does not
    vary.
    """
    if not x.size:
        return math.nan
    bins, column = np.unique(bin_of(x).ravel(), return_inverse=True)
    values = z.ravel().astype(np.float64)
    count = np.bincount(column)
    means = np.bincount(column, values) / np.maximum(count, 1)
    total = float(((values - values.mean()) ** 2).sum())
    free = len(values) - len(bins)
    if total <= 0 or free <= 0:
        return math.nan
    between = float(count @ (means - values.mean()) ** 2)
    return (between - (len(bins) - 1) * (total - between) / free) / total


def pooled_line(
    count: Floats, mean: Floats, var: Floats, slope: Floats, offset: Floats, ceiling: float
) -> Fit:
    """Least squares of z on x over every element, from per-channel count, mean and variance of x,
    slope and offset, each (C,).

    status `affine`; ceiling: what one curve could explain at most, see `sampled_ceiling`.
    """
    n = count.sum()
    w = count / max(n, 1)
    z_mean = slope * mean + offset
    dx, dz = mean - w @ mean, z_mean - w @ z_mean
    xx, xz, zz = w @ (var + dx * dx), w @ (slope * var + dx * dz), w @ (slope**2 * var + dz * dz)
    if not (xx > 0 and zz > 0 and math.isfinite(xz)):
        return Fit("linear", "layer", "population", Status.AFFINE, count=int(n))
    r2 = float(xz * xz / (xx * zz))
    rise = float(xz / xx)
    return Fit(
        family="linear",
        scope="layer",
        weighting="population",
        status=Status.AFFINE,
        beta=float(w @ z_mean - rise * (w @ mean)),
        slope=rise,
        r2=r2,
        r2_ceiling=max(ceiling, r2) if math.isfinite(ceiling) else r2,
        linear_r2=r2,
        gain=0.0,
        rmse=math.sqrt(max(zz * (1 - r2), 0)),
        best=True,
        count=int(n),
    )

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

from probe.curves.binned import BinnedMap
from probe.records import Fit, Status

Floats = NDArray[np.float64]


def pooled_line(
    count: Floats, mean: Floats, var: Floats, slope: Floats, offset: Floats, binned: BinnedMap
) -> Fit:
    """Least squares of z on x over every element, from per-channel count, mean and variance of x,
    slope and offset, each (C,).

    status `affine`; the ceiling is the between-bin share of the variance of z.
    """
    n = count.sum()
    w = count / max(n, 1)
    z_mean = slope * mean + offset
    dx, dz = mean - w @ mean, z_mean - w @ z_mean
    xx, xz, zz = w @ (var + dx * dx), w @ (slope * var + dx * dz), w @ (slope**2 * var + dz * dz)
    if not (xx > 0 and zz > 0 and math.isfinite(xz)):
        return Fit("linear", "layer", "population", Status.AFFINE, count=int(n))
    means = binned.sum_z.sum(axis=0) / binned.total
    ceiling = float(binned.total @ (means - w @ z_mean) ** 2 / n / zz)
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
        r2_ceiling=max(ceiling, r2),
        linear_r2=r2,
        gain=0.0,
        rmse=math.sqrt(max(zz * (1 - r2), 0)),
        best=True,
        count=int(n),
    )

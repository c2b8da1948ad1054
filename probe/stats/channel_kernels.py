"""Sums per channel over the elements of a layer, for the kernels (numba).

sums (ChannelSum, C) float64; `ChannelSum` names their rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from probe.stats.compile_kernels import finite_kernel, finite_part, inlined, part
from probe.stats.sums import ChannelSum
from probe.stats.tail_kernels import collect_outside

BLOCK = 256  # channels whose sums, 64 bytes each, fit the fastest cache with the values to add


@inlined
def begin(sums: Any) -> None:
    """The sums (ChannelSum, C) of nothing."""
    sums[:] = 0.0
    sums[ChannelSum.X_MIN.value] = sums[ChannelSum.Z_MIN.value] = np.inf
    sums[ChannelSum.X_MAX.value] = sums[ChannelSum.Z_MAX.value] = -np.inf


@finite_kernel
def add_images(sums: Any, of_images: Any) -> None:
    """Add the sums (B, ChannelSum, C) of images, in their order, to sums (ChannelSum, C)."""
    for b in range(of_images.shape[0]):
        for row in range(sums.shape[0]):
            mine, others = sums[row], of_images[b, row]
            if row == ChannelSum.X_MIN.value or row == ChannelSum.Z_MIN.value:
                for c in range(mine.shape[0]):
                    mine[c] = min(mine[c], others[c])
            elif row == ChannelSum.X_MAX.value or row == ChannelSum.Z_MAX.value:
                for c in range(mine.shape[0]):
                    mine[c] = max(mine[c], others[c])
            else:
                for c in range(mine.shape[0]):
                    mine[c] += others[c]


@finite_part
def _add_four(sums, x, four, first, end, means, scales, low, high):  # type: ignore[no-untyped-def]
    """Add four rows x[four] of finite values, each normalized by its mean and scale, to the sums of
    the channels first .. end - 1. Is any value outside the bounds?"""
    x0, x1 = x[four[0], first:end], x[four[1], first:end]
    x2, x3 = x[four[2], first:end], x[four[3], first:end]
    m0, m1, m2, m3 = means[0], means[1], means[2], means[3]
    s0, s1, s2, s3 = scales[0], scales[1], scales[2], scales[3]
    x_sum, x_squares = sums[ChannelSum.X.value, first:end], sums[ChannelSum.XX.value, first:end]
    x_min, x_max = sums[ChannelSum.X_MIN.value, first:end], sums[ChannelSum.X_MAX.value, first:end]
    lower, upper = low[first:end], high[first:end]
    outside = 0
    for c in range(end - first):
        a, b = np.float64(x0[c]), np.float64(x1[c])
        d, e = np.float64(x2[c]), np.float64(x3[c])
        smallest, largest = min(min(a, b), min(d, e)), max(max(a, b), max(d, e))
        x_sum[c] += (a + b) + (d + e)
        x_squares[c] += (a * a + b * b) + (d * d + e * e)
        x_min[c] = min(x_min[c], smallest)
        x_max[c] = max(x_max[c], largest)
        outside += (largest > upper[c]) | (smallest < lower[c])
    z_sum, z_squares = sums[ChannelSum.Z.value, first:end], sums[ChannelSum.ZZ.value, first:end]
    z_min, z_max = sums[ChannelSum.Z_MIN.value, first:end], sums[ChannelSum.Z_MAX.value, first:end]
    for c in range(end - first):
        a, b = (np.float64(x0[c]) - m0) * s0, (np.float64(x1[c]) - m1) * s1
        d, e = (np.float64(x2[c]) - m2) * s2, (np.float64(x3[c]) - m3) * s3
        z_sum[c] += (a + b) + (d + e)
        z_squares[c] += (a * a + b * b) + (d * d + e * e)
        z_min[c] = min(z_min[c], min(min(a, b), min(d, e)))
        z_max[c] = max(z_max[c], max(max(a, b), max(d, e)))
    return outside > 0


@inlined
def add_one(sums: Any, c: Any, x: Any, z: Any) -> None:
    """Add one finite element to the sums of its channel, but for their count."""
    sums[ChannelSum.X.value, c] += x
    sums[ChannelSum.XX.value, c] += x * x
    sums[ChannelSum.X_MIN.value, c] = min(sums[ChannelSum.X_MIN.value, c], x)
    sums[ChannelSum.X_MAX.value, c] = max(sums[ChannelSum.X_MAX.value, c], x)
    sums[ChannelSum.Z.value, c] += z
    sums[ChannelSum.ZZ.value, c] += z * z
    sums[ChannelSum.Z_MIN.value, c] = min(sums[ChannelSum.Z_MIN.value, c], z)
    sums[ChannelSum.Z_MAX.value, c] = max(sums[ChannelSum.Z_MAX.value, c], z)


@part
def add_rows(sums, x, rows, means, scales, low, high, flagged, outside):  # type: ignore[no-untyped-def]
    """Add the rows x[rows] of finite values to the sums of their channels, some channels after the
    other, whose sums then stay in the fastest cache; and collect what is outside the bounds."""
    number, channels = rows.shape[0], x.shape[1]
    fours = number // 4
    reaches = np.zeros(fours + 1, np.bool_)
    for first in range(0, channels, BLOCK):
        end = min(first + BLOCK, channels)
        for k in range(fours):
            four = slice(4 * k, 4 * k + 4)
            reaches[k] |= _add_four(
                sums, x, rows[four], first, end, means[four], scales[four], low, high
            )
    for k in range(4 * fours, number):
        for c in range(channels):
            value = np.float64(x[rows[k], c])
            add_one(sums, c, value, (value - means[k]) * scales[k])
        reaches[fours] = True
    for k in range(number):
        if reaches[k // 4]:
            flagged[rows[k]] = collect_outside(x[rows[k]], rows[k], True, low, high, outside)

"""Weighted points that stand for a map in bins: what the least-squares fit sees.

A bin of n elements with mean (x, z) becomes two points (x - h, z - b h) and (x + h, z + b h) of half its weight, where h^2 is the
variance of x expected inside the bin and b the local slope of the bin means. So the sums of squares and products of the points
are those of the elements up to terms of fourth order in the bin width; single points at the mean miss 4e-5 of them.
The replicates of the jackknife use the bin means themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probe.curves.binned import BinnedMap

Floats = NDArray[np.float64]

MERGE_BELOW = 10  # weighting `range`: bins of fewer elements join the next one toward zero
_NEIGHBOURS = 7  # bins in the local slope
_COARSE = 4  # bins that share a point on the grid of starts


@dataclass(frozen=True)
class Points:
    """B maps that share their K inputs: x (K,), weights w (B, K) of sum 1 per row, values z (B, K); tss (B,) the total variance.

    `tss` counts what lies inside the points too, in units of z^2 under the same weights.
    """

    x: Floats
    w: Floats
    z: Floats
    tss: Floats

    @property
    def between(self) -> Floats:
        """Variance of the points about their mean (B,)."""
        mean = np.vecdot(self.w, self.z)
        return np.vecdot(self.w, (self.z - mean[:, None]) ** 2)


@dataclass(frozen=True)
class Problem:
    """One layer under one weighting: the total (B = 1), the replicates (B = occupied groups, or 0), a coarse view of both."""

    total: Points
    replicates: Points
    coarse: Points  # B = 1 + replicates
    chance: float  # variance that the means of so many bins have by the scatter inside them
    max_abs: float
    occupied: int  # bins
    count: int
    groups: int


def problem(binned: BinnedMap, weighting: str, jackknife: bool = True) -> Problem:
    """The points of a map under `population` (every element once) or `range` (every bin its width)."""
    sums = np.stack([binned.count, binned.sum_x, binned.sum_z, binned.sum_zz])  # (4, G, K)
    index, width = binned.bin, None
    if weighting == "range":
        index, sums, width = _merged(binned, sums)
    lower_upper = binned.edges if width is None else None
    total = sums.sum(axis=1)
    groups = np.flatnonzero(sums[0].sum(axis=1))
    left_out = total[:, None] - sums[:, groups] if jackknife and len(groups) > 1 else total[:, None][:, :0]
    mean_x = total[1] / total[0]
    replicates = _at_means(mean_x, left_out, width)
    means = _at_means(mean_x, total[:, None], width)
    return Problem(
        total=means if lower_upper is None else in_pairs(means, total, *lower_upper),
        replicates=replicates,
        coarse=_coarse(index, means, replicates),
        chance=_chance(means, total, pooled=width is None),
        max_abs=binned.max_abs,
        occupied=len(mean_x),
        count=int(binned.total.sum()),
        groups=len(groups),
    )


def _at_means(x: Floats, sums: Floats, width: Floats | None) -> Points:
    """Points at the bin means; sums (4, B, K). Elements of a bin share its weight: their number, or the width of the bin."""
    count, _, sum_z, sum_zz = sums
    filled = count > 0
    safe = np.where(filled, count, 1)
    w = count if width is None else np.where(filled, width, 0)
    w = w / np.maximum(w.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    z = np.where(filled, sum_z / safe, 0)
    mean = np.vecdot(w, z)[:, None]
    inside = np.maximum(np.where(filled, sum_zz / safe, 0) - z * z, 0)
    return Points(x, w, z, np.vecdot(w, inside + (z - mean) ** 2))


def _chance(means: Points, total: Floats, pooled: bool) -> float:
    """sum w s^2 / n over bins; s^2 pooled, as most bins of the far ends hold one element, or of each bin where all hold ten."""
    count = total[0]
    inside = np.maximum(total[3] / count - means.z[0] ** 2, 0)
    if pooled:
        inside = np.full_like(inside, count @ inside / max(count.sum() - len(count), 1))
        return float(means.w[0] @ (inside / count))
    return float(means.w[0] @ (inside / np.maximum(count - 1, 1)))


def in_pairs(means: Points, total: Floats, lower: Floats, upper: Floats) -> Points:
    """Two points per bin. h^2 = (x - lower)(upper - x) (n - 1)/(3 n - 1): unbiased for an even spread, 0 for one element."""
    count, x, z = total[0], means.x, means.z[0]
    h = np.sqrt(np.maximum((x - lower) * (upper - x), 0) * (count - 1) / (3 * count - 1))
    spread = np.sqrt(np.maximum(total[3] / count - z * z, 0))
    rise = np.clip(_local_slope(count, x, z) * h, -spread, spread)
    w = means.w[0] / 2
    return Points(
        np.concatenate([x - h, x + h]), np.concatenate([w, w])[None], np.concatenate([z - rise, z + rise])[None], means.tss
    )


def _local_slope(count: Floats, x: Floats, z: Floats) -> Floats:
    """Slope of the line through each bin mean and its neighbours (K,); 0 where they do not spread."""
    n, sx, sz, sxx, sxz = (
        np.convolve(each, np.ones(_NEIGHBOURS), mode="full")[_NEIGHBOURS // 2 :][: len(x)]
        for each in (count, count * x, count * z, count * x * x, count * x * z)
    )
    variance = sxx - sx * sx / n
    flat = variance <= 1e-9 * sxx
    return np.where(flat, 0, (sxz - sx * sz / n) / np.where(flat, 1, variance))


def _merged(binned: BinnedMap, sums: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Bins under 10 elements joined with the next one toward zero, per sign; a rest of either side joins the innermost bin.

    Returns the index (K',) of the innermost member, the sums (4, G, K') and the summed widths of the members (K',).
    """
    lower, upper = binned.edges
    count, middle = binned.total, int(np.searchsorted(binned.bin, 0))
    left, right = _runs(count[:middle]), len(count) - _runs(count[middle:][::-1])
    if 0 < count[left[-1] : right[-1]].sum() < MERGE_BELOW:
        left, right = (left[:-1], right) if len(left) > 1 else (left, right[:-1])
    starts = np.unique(np.concatenate([[0], left, right]))
    starts = starts[starts < len(count)]
    width = np.add.reduceat(upper - lower, starts)
    last = np.append(starts[1:], len(count)) - 1
    index = np.where(binned.bin[last] < 0, binned.bin[last], binned.bin[starts])
    return index, np.add.reduceat(sums, starts, axis=2), np.maximum(width, np.finfo(float).tiny)


def _runs(count: Floats) -> NDArray[np.int64]:
    """Starts of the runs of at least 10 elements, from the outer end; the end of the last full run is a start as well."""
    starts, held = [0], 0.0
    for k, each in enumerate(count.tolist()):
        held += each
        if held >= MERGE_BELOW:
            starts.append(k + 1)
            held = 0.0
    return np.array(starts, dtype=np.int64)


def _coarse(index: NDArray[np.int64], means: Points, replicates: Points) -> Points:
    """Four bins to a point: enough to tell where the optima lie."""
    starts = np.flatnonzero(np.diff(index // _COARSE, prepend=index[0] // _COARSE - 1)) if len(index) else index
    w = np.concatenate([means.w, replicates.w])
    wz = w * np.concatenate([means.z, replicates.z])
    tss = np.concatenate([means.tss, replicates.tss])
    w_sum = np.add.reduceat(w, starts, axis=1)
    x = np.add.reduceat(means.w[0] * means.x, starts) / w_sum[0]
    z = np.add.reduceat(wz, starts, axis=1) / np.where(w_sum > 0, w_sum, 1)
    return Points(x, w_sum, z, tss)

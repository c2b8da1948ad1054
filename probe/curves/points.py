"""Weighted points that stand for a map in bins: what the least-squares fit sees.

A bin of n elements with mean (x, z) becomes two points (x - h, z - b h) and (x + h, z + b h) of
half its weight, where h^2 is the variance of x inside the bin and b h^2 its covariance with z. So
the sums of squares and products of the points are those of the elements; single points at the mean
miss 4e-5 of them. The replicates of the jackknife use the bin means themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from probe.curves.binned import BinnedMap

Floats = NDArray[np.float64]

MERGE_BELOW = 10  # weighting `range`: bins of fewer elements join the next one toward zero
_ROUNDING = 1e-13  # of the mean square of x: less variance than this is rounding of the sums
_COARSE = 4  # bins that share a point on the grid of starts


@dataclass(frozen=True)
class Points:
    """B maps that share their K inputs: x (K,), weights w (B, K) of sum 1 per row, values z (B, K);
    tss (B,) the total variance.

    `tss` counts what lies inside the points too, in units of z^2 under the same weights.
    """

    x: Floats
    w: Floats
    z: Floats
    tss: Floats

    @cached_property
    def between(self) -> Floats:
        """Variance of the points about their mean (B,)."""
        mean = np.vecdot(self.w, self.z)
        return np.vecdot(self.w, (self.z - mean[:, None]) ** 2)


@dataclass(frozen=True)
class Problem:
    """One layer under one weighting: the total (B = 1), the replicates (B = occupied groups, or 0),
    a coarse view of both.
    """

    total: Points
    replicates: Points
    coarse: Points  # B = 1 + replicates
    chance: float  # variance that the means of so many bins have by the scatter inside them
    max_abs: float
    occupied: int  # bins
    count: int
    groups: int


def problem(binned: BinnedMap, weighting: str, jackknife: bool = True) -> Problem:
    """The points of a map under `population` (every element once) or `range` (every bin its
    width).
    """
    sums = np.stack(
        [binned.count, binned.sum_x, binned.sum_z, binned.sum_zz, binned.sum_xx, binned.sum_xz]
    )  # (6, G, K)
    index, width = binned.bin, None
    if weighting == "range":
        index, sums, width = _merged(binned, sums)
    total = sums.sum(axis=1)
    groups = np.flatnonzero(sums[0].sum(axis=1))
    left_out = (
        total[:, None] - sums[:, groups] if jackknife and len(groups) > 1 else total[:, None][:, :0]
    )
    mean_x = total[1] / total[0]
    replicates = _at_means(mean_x, left_out, width)
    means = _at_means(mean_x, total[:, None], width)
    return Problem(
        total=in_pairs(means, total) if width is None else means,
        replicates=replicates,
        coarse=_coarse(index, means, replicates),
        chance=_chance(means, total, pooled=width is None),
        max_abs=binned.max_abs,
        occupied=len(mean_x),
        count=int(binned.total.sum()),
        groups=len(groups),
    )


def _at_means(x: Floats, sums: Floats, width: Floats | None) -> Points:
    """Points at the bin means; sums (6, B, K). Elements of a bin share its weight: their number, or
    the width of the bin.
    """
    count, _, sum_z, sum_zz = sums[:4]
    filled = count > 0
    safe = np.where(filled, count, 1)
    w = count if width is None else np.where(filled, width, 0)
    w = w / np.maximum(w.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    z = np.where(filled, sum_z / safe, 0)
    mean = np.vecdot(w, z)[:, None]
    inside = np.maximum(np.where(filled, sum_zz / safe, 0) - z * z, 0)
    return Points(x, w, z, np.vecdot(w, inside + (z - mean) ** 2))


def _chance(means: Points, total: Floats, pooled: bool) -> float:
    """sum w p s^2 / n over bins, with p what a bin shows of itself.

    That is its mean and, under `population`, its own slope from two elements on.
    s^2 is pooled, as most bins of the far ends hold one element, or that of each bin where all hold
    ten.
    """
    count = total[0]
    inside = np.maximum(total[3] / count - means.z[0] ** 2, 0)
    if pooled:
        shown = np.minimum(count, 2)
        scatter = count @ inside / max((count - 1).sum(), 1)
        return float(means.w[0] @ (shown * scatter / count))
    return float(means.w[0] @ (inside / np.maximum(count - 1, 1)))


def in_pairs(means: Points, total: Floats) -> Points:
    """Two points per bin, with the bin's own variance of x and covariance of x and z; total (6,
    K).
    """
    count, sum_x, sum_z, _, sum_xx, sum_xz = total
    variance = np.maximum(sum_xx - sum_x * sum_x / count, 0) / count
    h = np.where(variance > _ROUNDING * sum_xx / count, np.sqrt(variance), 0)
    rise = np.divide(sum_xz - sum_x * sum_z / count, count * h, out=np.zeros_like(h), where=h > 0)
    x, z, w = means.x, means.z[0], means.w[0] / 2
    return Points(
        np.concatenate([x - h, x + h]),
        np.concatenate([w, w])[None],
        np.concatenate([z - rise, z + rise])[None],
        means.tss,
    )


def _merged(binned: BinnedMap, sums: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Bins under 10 elements joined with the next one toward zero, per sign; a rest of either side
    joins the innermost bin.

    Returns the index (K',) of the innermost member, the sums (4, G, K') and the summed widths of
    the members (K',).
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
    """Starts of the runs of at least 10 elements, from the outer end; the end of the last full run
    is a start as well.
    """
    starts, held = [0], 0.0
    for k, each in enumerate(count.tolist()):
        held += each
        if held >= MERGE_BELOW:
            starts.append(k + 1)
            held = 0.0
    return np.array(starts, dtype=np.int64)


def _coarse(index: NDArray[np.int64], means: Points, replicates: Points) -> Points:
    """Four bins to a point: enough to tell where the optima lie."""
    starts = (
        np.flatnonzero(np.diff(index // _COARSE, prepend=index[0] // _COARSE - 1))
        if len(index)
        else index
    )
    w = np.concatenate([means.w, replicates.w])
    wz = w * np.concatenate([means.z, replicates.z])
    tss = np.concatenate([means.tss, replicates.tss])
    w_sum = np.add.reduceat(w, starts, axis=1)
    x = np.add.reduceat(means.w[0] * means.x, starts) / w_sum[0]
    z = np.add.reduceat(wz, starts, axis=1) / np.where(w_sum > 0, w_sum, 1)
    return Points(x, w_sum, z, tss)

"""A map in bins: what the profile of one layer says, per image group, and the shares that are read
off it.

Bins come from `probe.bins` (about 3 % wide). Sums per bin are exact, so a bin's mean input and mean
normalized value are too, and so are their variances and covariance inside the bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from probe.bins import PER_SIGN, edges
from probe.curves.families import family_of
from probe.errors import UsageError
from probe.records import GROUPS, TOKENS

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BinnedMap:
    """Sums over the elements of each bin, apart for each image group: arrays (G, K), G = 16 groups,
    K bins that hold something.

    `bin` (K,) ascends. `min_x`, `max_x` is the observed range of the input.
    """

    bin: NDArray[np.int64]
    count: Floats
    sum_x: Floats
    sum_z: Floats
    sum_zz: Floats
    sum_xx: Floats
    sum_xz: Floats
    min_x: float
    max_x: float
    tokens: str = "all"

    @classmethod
    def from_frame(
        cls, rows: pd.DataFrame, min_x: float, max_x: float, tokens: str = "all"
    ) -> BinnedMap:
        """From the PROFILE rows of one layer; `tokens`: all, patch or prefix.

        `min_x`, `max_x` are those of the layer; they are narrowed to the bins that the chosen
        tokens occupy.
        """
        if tokens not in ("all", *TOKENS):
            raise UsageError(f"tokens {tokens!r} is unknown; known: all, {', '.join(TOKENS)}")
        if tokens != "all":
            rows = rows[rows["tokens"] == tokens]
        kept, column = _occupied(rows["bin"].to_numpy(dtype=np.int64))
        cell = rows["group"].to_numpy(dtype=np.int64) * len(kept) + column

        def table(name: str) -> Floats:
            weights = rows[name].to_numpy(dtype=np.float64)
            return (
                np.bincount(cell, weights, GROUPS * len(kept))
                .astype(np.float64)
                .reshape(GROUPS, len(kept))
            )

        min_x, max_x = _narrowed(kept, min_x, max_x)
        return cls(
            bin=kept,
            count=table("count"),
            sum_x=table("sum_input"),
            sum_z=table("sum_normalized"),
            sum_zz=table("sum_normalized_sq"),
            sum_xx=table("sum_input_sq"),
            sum_xz=table("sum_product"),
            min_x=min_x,
            max_x=max_x,
            tokens=tokens,
        )

    @cached_property
    def edges(self) -> tuple[Floats, Floats]:
        """Lower and upper edge of each bin (K,), clipped to the observed range."""
        lower, upper = edges(self.bin)
        return np.clip(lower, self.min_x, self.max_x), np.clip(upper, self.min_x, self.max_x)

    @cached_property
    def total(self) -> Floats:
        """Elements of each bin (K,)."""
        return self.count.sum(axis=0)

    @property
    def max_abs(self) -> float:
        return max(abs(self.min_x), abs(self.max_x))


def _occupied(bins: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The bins that occur, ascending, and which of them each one is; there are few, so by counting
    in place of sorting.
    """
    if not len(bins):
        return bins, bins
    lowest = bins.min()
    occurs = np.bincount(bins - lowest) > 0
    return np.flatnonzero(occurs) + lowest, (np.cumsum(occurs) - 1)[bins - lowest]


def _narrowed(kept: NDArray[np.int64], min_x: float, max_x: float) -> tuple[float, float]:
    """The range, no wider than the occupied bins; the outermost bins are open."""
    if not len(kept):
        return min_x, max_x
    lower, upper = edges(kept[[0, -1]])
    if kept[0] > -PER_SIGN:
        min_x = max(min_x, float(lower[0]))
    if kept[-1] < PER_SIGN:
        max_x = min(max_x, float(upper[1]))
    return min_x, max_x


def _share_above(binned: BinnedMap, threshold: float) -> float:
    """Elements with x > threshold, by linear interpolation inside the bin at the threshold."""
    lower, upper = binned.edges
    width = upper - lower
    part = np.where(
        width > 0, (upper - threshold) / np.where(width > 0, width, 1), upper > threshold
    )
    return float(np.clip(part, 0, 1) @ binned.total)


def share_outside(binned: BinnedMap, alpha: float, limit: float, shift: float = 0.0) -> float:
    """Share of elements with |alpha * x + shift| > limit; alpha > 0."""
    count = float(binned.total.sum())
    if count == 0 or not np.isfinite(limit):
        return 0.0
    above = _share_above(binned, (limit - shift) / alpha)
    below = count - _share_above(binned, (-limit - shift) / alpha)
    return (above + below) / count


def beyond_linear(
    binned: BinnedMap, alpha: float, shift: float = 0.0, family: str = "tanh"
) -> float:
    """Share of elements where the fitted slope is under half of that at the curve's centre (tanh:
    |alpha x + shift| > 0.881).
    """
    return share_outside(binned, alpha, family_of(family).half_slope, shift)


def saturation(binned: BinnedMap, alpha: float, shift: float = 0.0) -> float:
    """Share of elements with |alpha * x + shift| > 2."""
    return share_outside(binned, alpha, 2.0, shift)


def median_abs(binned: BinnedMap) -> float:
    """Median of |x|, interpolated inside its bin; nan without elements."""
    folded, column = np.unique(np.abs(binned.bin), return_inverse=True)
    if not len(folded) or binned.total.sum() == 0:
        return float("nan")
    count = np.bincount(column, binned.total)
    lower, upper = edges(folded)
    lower, upper = np.maximum(lower, 0.0), np.minimum(upper, binned.max_abs)
    reached = np.cumsum(count)
    k = int(np.searchsorted(reached, reached[-1] / 2))
    part = (reached[-1] / 2 - (reached[k] - count[k])) / count[k]
    return float(lower[k] + part * (upper[k] - lower[k]))


__all__ = ["BinnedMap", "beyond_linear", "median_abs", "saturation", "share_outside"]

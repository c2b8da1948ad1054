"""Exact per-channel moments of input and normalized, streamed over every element.

Kept are sums in float64, so states merge by addition; mean and variance (biased) are read out as
sum/n and sum_sq/n - mean^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probe.stats.records import Summary, new_sums


@dataclass(frozen=True)
class Spread:
    """Mean, biased variance, smallest and largest value per channel, each (C,)."""

    mean: NDArray[np.float64]
    var: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]

    def scaled(self, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> Spread:
        """The spread of weight * value + bias."""
        ends = np.sort(np.stack([weight * self.min + bias, weight * self.max + bias]), axis=0)
        return Spread(weight * self.mean + bias, weight**2 * self.var, ends[0], ends[1])


class Moments:
    """Streaming sums (9, C) of one layer: sum, sum of squares, min, max of input, then of
    normalized, then the count.
    """

    def __init__(self, channels: int) -> None:
        self.sums = new_sums(1, channels)[0]

    def update(self, summary: Summary) -> None:
        self._add(summary.sums)

    def merge(self, other: Moments) -> None:
        self._add(other.sums[None])

    @property
    def count(self) -> NDArray[np.int64]:
        """Finite elements per channel (C,)."""
        return self.sums[8].astype(np.int64)

    def _add(self, sums: NDArray[np.float64]) -> None:
        """Add the sums (n, 9, C) of n images."""
        total = sums.sum(axis=0)
        for rows in (slice(0, 2), slice(4, 6), slice(8, 9)):
            self.sums[rows] += total[rows]
        smallest, largest = slice(2, 7, 4), slice(3, 8, 4)
        np.minimum(self.sums[smallest], sums[:, smallest].min(axis=0), out=self.sums[smallest])
        np.maximum(self.sums[largest], sums[:, largest].max(axis=0), out=self.sums[largest])

    def _spread(self, offset: int) -> Spread:
        total, squares, smallest, largest = self.sums[offset : offset + 4]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / self.count
            var = np.maximum(squares / self.count - mean**2, 0)
        var = np.where(
            smallest == largest, 0.0, var
        )  # a constant channel has variance 0, not rounding
        empty = self.count == 0
        return Spread(
            mean, var, np.where(empty, np.nan, smallest), np.where(empty, np.nan, largest)
        )

    @property
    def input(self) -> Spread:
        return self._spread(0)

    @property
    def normalized(self) -> Spread:
        return self._spread(4)

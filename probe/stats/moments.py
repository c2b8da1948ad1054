"""Exact per-channel moments of input and normalized, streamed over every element.

Kept are sums in float64, so states merge by addition; mean and variance (biased) are read out as
sum/n and sum_sq/n - mean^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probe.stats.batch_summary import BatchSummary
from probe.stats.channel_kernels import add_images
from probe.stats.state import State, fitting
from probe.stats.sums import INPUT_ROWS, NORMALIZED_ROWS, ChannelSum, no_sums


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
    """Streaming sums (ChannelSum, C) of one layer."""

    def __init__(self, channels: int) -> None:
        self.sums = no_sums(channels)

    def update(self, summary: BatchSummary) -> None:
        add_images(self.sums, np.ascontiguousarray(summary.sums))

    def merge(self, other: Moments) -> None:
        add_images(self.sums, other.sums[None])

    def state(self) -> State:
        return {"sums": self.sums}

    def restore(self, state: State) -> None:
        self.sums = fitting(state["sums"], self.sums)

    @property
    def count(self) -> NDArray[np.int64]:
        """Finite elements per channel (C,)."""
        return self.sums[ChannelSum.COUNT].astype(np.int64)

    def _spread(self, rows: tuple[ChannelSum, ...]) -> Spread:
        total, squares, smallest, largest = self.sums[list(rows)]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / self.count
            var = np.maximum(squares / self.count - mean**2, 0)
        var = np.where(smallest == largest, 0.0, var)  # of a constant channel, not its rounding
        empty = self.count == 0
        ends = (np.where(empty, np.nan, end) for end in (smallest, largest))
        return Spread(mean, var, *ends)

    @property
    def input(self) -> Spread:
        return self._spread(INPUT_ROWS)

    @property
    def normalized(self) -> Spread:
        return self._spread(NORMALIZED_ROWS)

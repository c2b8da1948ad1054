"""What one batch of one layer is reduced to: on the CPU beside its profile, while somebody collects
the extreme values; on a device by one of two backends, which leave all of it there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass
class BatchSummary:
    """One batch of one layer, reduced."""

    sums: NDArray[np.float64]  # (B, ChannelSum, C)
    not_finite: int  # elements that entered no sum
    means: NDArray[np.float64] | None  # (B, P) of TokenNorm, NaN at padding
    sigmas: NDArray[np.float64] | None


Bounds = tuple[NDArray[np.float32], NDArray[np.float32]]  # low and high (C,)


def leaves_some_inside(bounds: Bounds) -> bool:
    """Do the bounds leave values inside, in every channel?"""
    low, high = bounds
    return bool((low < np.inf).all() and (high > -np.inf).all())


class Extremes(Protocol):
    """Collects the values outside its bounds, which only ever tighten."""

    @property
    def bounds(self) -> Bounds: ...

    @property
    def parts(self) -> int:
        """Of so many parts of a batch, at most, `start` takes the ends; 0 once there are bounds."""

    def start(self, low: NDArray[np.floating], high: NDArray[np.floating]) -> None:
        """First bounds from the smallest and largest value (n, C) of each of n parts of a batch."""

    def collect(
        self,
        values: NDArray[np.float32],
        image: NDArray[np.int64],
        position: NDArray[np.int64],
        channel: NDArray[np.int64],
    ) -> None:
        """Take values (n,) with their image in the batch, position and channel."""


@dataclass(frozen=True)
class Candidates:
    """Values for the tail. `count` (1,) says how many lie outside of the bounds; up to `capacity`
    they are listed from 0 on, in any order. Where there are more, the list holds the largest and
    the smallest of each channel instead, with gaps of place -1.
    """

    values: Tensor  # (n,) float32
    places: Tensor  # (n,) int64: (image * P + position) * C + channel
    count: Tensor
    capacity: int


@dataclass(frozen=True)
class Reduced:
    """One batch of one layer, still on its device."""

    sums: Tensor  # (ChannelSum, C) float64
    not_finite: Tensor  # () int64, elements that entered no sum
    means: Tensor  # (B, P) float64 of TokenNorm, NaN at padding; else empty
    sigmas: Tensor
    cells: Tensor  # (kinds, groups, CELLS, CellSum) float64, no groups of a line
    groups: NDArray[np.int64]  # (groups,)
    candidates: Candidates

"""What one batch of one layer is reduced to beside its profile, and who collects the extreme values
meanwhile; shared by the two backends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass
class BatchSummary:
    """One batch of one layer, reduced."""

    sums: NDArray[np.float64]  # (B, ChannelSum, C)
    not_finite: int  # elements that entered no sum
    means: NDArray[np.float64] | None  # (B, P) of TokenNorm, NaN at padding
    sigmas: NDArray[np.float64] | None


Bounds = tuple[NDArray[np.float32], NDArray[np.float32]]  # low and high (C,)


class Extremes(Protocol):
    """Collects the values outside its bounds, which only ever tighten."""

    @property
    def bounds(self) -> Bounds: ...

    @property
    def most(self) -> int:
        """So many values at most of one channel beyond one of its bounds can matter."""

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

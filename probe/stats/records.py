"""What one batch of one layer is reduced to beside its profile, and who collects the extreme
values; shared by the two backends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass
class Summary:
    """One batch of one layer, reduced."""

    sums: NDArray[np.float64]  # (B, 9, C), see kernels
    not_finite: int
    means: NDArray[np.float64] | None  # (B, P) of TokenNorm, NaN at padding
    sigmas: NDArray[np.float64] | None


Bounds = tuple[NDArray[np.float32], NDArray[np.float32]]  # low and high (C,)


class Extremes(Protocol):
    """Collects the values outside its bounds, which only ever tighten."""

    @property
    def bounds(self) -> Bounds: ...

    def start(self, sums: NDArray[np.float64]) -> None:
        """First bounds from the extremes (B, 9, C) of every image and channel, where there are none
        yet.
        """

    def collect(
        self,
        values: NDArray[np.float32],
        image: NDArray[np.int64],
        position: NDArray[np.int64],
        channel: NDArray[np.int64],
    ) -> None:
        """Take values (n,) with their image in the batch, position and channel."""


def new_sums(images: int, channels: int) -> NDArray[np.float64]:
    sums = np.zeros((images, 9, channels))
    sums[:, (2, 6)] = np.inf
    sums[:, (3, 7)] = -np.inf
    return sums

"""What one batch of one layer is reduced to, and how extreme values travel; shared by the two backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class Summary:
    """One batch of one layer, reduced. `cells` is borrowed: it is overwritten by the next summary."""

    cells: NDArray[np.float64]  # (B, kinds, BINS, SUMS)
    sums: NDArray[np.float64]  # (B, 9, C), see kernels
    not_finite: int
    means: NDArray[np.float64] | None  # (B, P) of TokenNorm, NaN at padding
    sigmas: NDArray[np.float64] | None


Bounds = tuple[NDArray[np.float32], NDArray[np.float32]]
# receives (values, image in batch, position, channel) of candidates and returns tighter bounds
Collect = Callable[[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], Bounds]


def new_sums(images: int, channels: int) -> NDArray[np.float64]:
    sums = np.zeros((images, 9, channels))
    sums[:, (2, 6)] = np.inf
    sums[:, (3, 7)] = -np.inf
    return sums

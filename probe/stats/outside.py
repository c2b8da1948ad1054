"""The values of a batch that lie outside of the bounds of the tail, on the CPU.

A kernel collects them on its way, as many as there is room for. In the first batch of a layer, when
there are no bounds yet, and where the next images are of another kind, there are more: then the
rows (planes) that hold them are scanned again, with bounds that tighten meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from probe.stats import tail_kernels
from probe.stats.batch_summary import Extremes
from probe.stats.sums import ChannelSum

# Extreme values collected between two tightenings of the bounds; one row (plane) must fit at least.
CANDIDATES = 1 << 15
ROOM = 512  # values outside of the bounds that a kernel collects of an image on its way


class Outside:
    """The values outside of the bounds that the kernels met, by image."""

    def __init__(self, images: int) -> None:
        self._number = np.zeros(images, np.int64)
        rows, channels = np.empty((2, images, ROOM), np.int64)
        # what a kernel takes
        self.room = np.empty((images, ROOM), np.float32), rows, channels, self._number

    def __bool__(self) -> bool:
        """Is there one?"""
        return bool(self._number.any())

    @property
    def too_many(self) -> NDArray[np.bool_]:
        """(B,) the images with more than there was room for."""
        return self._number > ROOM


def start(
    extremes: Extremes, sums: NDArray[np.float64], x: NDArray[np.float32] | None, axis: int
) -> None:
    """First bounds, where there are none yet, from the ends of as many parts of the batch as count,
    or of its images.

    x: (B, P, C) or (B, C, P), `axis` that of the positions; None where a value may enter no sum.
    """
    parts = extremes.parts // len(sums)  # of each image
    if parts and x is not None:
        extremes.start(*_ends_of_parts(x, axis, parts))
    elif parts:
        extremes.start(sums[:, ChannelSum.X_MIN], sums[:, ChannelSum.X_MAX])


def _ends_of_parts(
    x: NDArray[np.float32], axis: int, parts: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The smallest and largest value (B * parts, C) of parts of equal size of each image; some of
    the last positions are in none.
    """
    parts = min(parts, x.shape[axis])
    size = x.shape[axis] // parts
    split = torch.from_numpy(x).narrow(axis, 0, parts * size).unflatten(axis, (parts, size))
    low, high = split.amin(axis + 1), split.amax(axis + 1)
    if axis == 2:
        low, high = low.transpose(1, 2), high.transpose(1, 2)
    return low.flatten(0, 1).numpy(), high.flatten(0, 1).numpy()


def collect_from_planes(
    x: NDArray[np.float32],
    flagged: NDArray[np.uint8],
    sums: NDArray[np.float64],
    extremes: Extremes,
) -> None:
    """Scan the flagged (B, C) of the planes x (B, C, P), those alone that reach beyond the bounds
    of now.
    """
    _, channels, positions = x.shape
    low, high = extremes.bounds
    flagged = flagged & ((sums[:, ChannelSum.X_MAX] > high) | (sums[:, ChannelSum.X_MIN] < low))

    def collect(values: NDArray, position: NDArray, plane: NDArray) -> None:
        image, channel = np.divmod(plane, channels)
        extremes.collect(values, image, position, channel)

    _scan(x.reshape(-1, positions), False, flagged.reshape(-1), extremes, collect)


def collect_from_rows(
    x: NDArray[np.float32],
    flagged: NDArray[np.uint8],
    index: NDArray[np.int64],
    positions: int,
    extremes: Extremes,
) -> None:
    """Scan the flagged (R,) of the rows x (R, C), which stand at `index` (R,), image * positions +
    position.
    """

    def collect(values: NDArray, row: NDArray, channels: NDArray) -> None:
        image, position = np.divmod(index[row], positions)
        extremes.collect(values, image, position, channels)

    _scan(x, True, flagged, extremes, collect)


def _scan(
    x: NDArray,
    along_rows: bool,
    flagged: NDArray,
    extremes: Extremes,
    collect: Callable[..., None],
) -> None:
    """Hand the values outside the bounds to `collect`, a buffer at a time; the tighter bounds hold
    for the rest.
    """
    capacity = max(CANDIDATES, x.shape[1])
    values = np.empty(capacity, np.float32)
    rows, channels = np.empty((2, capacity), np.int64)
    number, begin = np.zeros(1, np.int64), 0
    outside = values, rows, channels, number
    while begin < len(x):
        begin = tail_kernels.scan(x, along_rows, flagged, *extremes.bounds, begin, outside)
        if count := int(number[0]):
            collect(values[:count], rows[:count], channels[:count])

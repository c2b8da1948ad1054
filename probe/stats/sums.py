"""What is summed over the elements of a layer, by name: the sums of a channel and those of a bin.

x is the input of the layer, z its normalized value. The kernels read these names as constants when
they are compiled, and a kernel from the cache on disk does not see a later change here: after one,
delete `probe/stats/__pycache__`.
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from probe.bins import CELLS


class ChannelSum(IntEnum):
    """Rows of the sums (ChannelSum, C) of a layer; the ends are those over all finite elements."""

    X = 0
    XX = 1
    X_MIN = 2
    X_MAX = 3
    Z = 4
    ZZ = 5
    Z_MIN = 6
    Z_MAX = 7
    COUNT = 8


# sum, sum of squares, smallest, largest: of the input, and of the normalized value
INPUT_ROWS = (ChannelSum.X, ChannelSum.XX, ChannelSum.X_MIN, ChannelSum.X_MAX)
NORMALIZED_ROWS = (ChannelSum.Z, ChannelSum.ZZ, ChannelSum.Z_MIN, ChannelSum.Z_MAX)


class CellSum(IntEnum):
    """The last axis of the cells of a profile: the sums over the elements of one bin."""

    X = 0
    Z = 1
    XX = 2
    ZZ = 3
    XZ = 4
    COUNT = 5


# A cell is a cache line of float64; what follows the count means nothing.
CELL_WIDTH = 8


def no_cells(kinds: int, groups: int) -> NDArray[np.float64]:
    """Empty cells (kinds, groups, CELLS, CELL_WIDTH), each of them one cache line of memory."""
    shape = (kinds, groups, CELLS, CELL_WIDTH)
    spare = np.zeros(math.prod(shape) + CELL_WIDTH)
    start = -spare.ctypes.data % (8 * CELL_WIDTH) // 8
    return spare[start : start + math.prod(shape)].reshape(shape)


def no_sums(channels: int) -> NDArray[np.float64]:
    """The sums (ChannelSum, C) of nothing."""
    sums = np.zeros((len(ChannelSum), channels))
    sums[[ChannelSum.X_MIN, ChannelSum.Z_MIN]] = np.inf
    sums[[ChannelSum.X_MAX, ChannelSum.Z_MAX]] = -np.inf
    return sums

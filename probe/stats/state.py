"""The state of accumulators as plain arrays with names, so that it can be kept in a file that runs
nothing. A restored accumulator goes on as the one that was kept would have: the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

State = dict[str, NDArray]


def put_under(prefix: str, state: Mapping[str, NDArray]) -> State:
    """The arrays of a part, in the names of the whole: `uniform.key`."""
    return {f"{prefix}.{name}": array for name, array in state.items()}


def taken_from(prefix: str, state: Mapping[str, NDArray]) -> State:
    """The arrays of a part, in its own names."""
    start = f"{prefix}."
    return {name[len(start) :]: array for name, array in state.items() if name.startswith(start)}


def fitting(array: NDArray, like: NDArray) -> NDArray:
    """A copy of `array`. Raises ValueError unless it has the dtype and shape of `like`."""
    if array.dtype != like.dtype or array.shape != like.shape:
        raise ValueError(
            f"an array is {array.dtype} {array.shape}, not {like.dtype} {like.shape} as it must be"
        )
    return np.array(array)

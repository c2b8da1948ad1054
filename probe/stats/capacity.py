"""Arrays of a fixed capacity that fill up; pickled they are cut down to what is filled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def with_capacity(filled: NDArray, capacity: int) -> NDArray:
    """An array of `capacity` rows that begins with those of `filled`; the others hold anything."""
    array = np.empty((capacity, *filled.shape[1:]), filled.dtype)
    array[: len(filled)] = filled
    return array

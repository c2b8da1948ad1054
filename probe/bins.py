"""Profile bins: relative, log-spaced with sign, and one bin around zero.

A bin is the sign, the exponent and the top 5 mantissa bits of the float32 pattern (`bits >> 18`),
so a bin is about 3 % wide and costs one shift to find. Exponents are clipped to 2^-16 .. 2^15:
|x| < 2^-16 falls into bin 0, |x| >= 2^16 into the outermost bins. Bin k > 0 holds
lower(k) <= x < upper(k); bin -k is its mirror image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

MANTISSA_BITS = 5
SHIFT = 23 - MANTISSA_BITS
MIN_EXPONENT = -16
MAX_EXPONENT = 15
PER_SIGN = (MAX_EXPONENT - MIN_EXPONENT + 1) << MANTISSA_BITS  # 1024
# While it grows, a profile keeps its cells where a shift finds them: 0 .. 1023 are bins 1 .. 1024,
# 1024 .. 2047 are bins -1 .. -1024, then comes what lies outside these exponents: near zero, beyond
# the largest, beyond the largest below zero.
CELLS = 2 * PER_SIGN + 3
BINS = 2 * PER_SIGN + 1  # array index = bin + PER_SIGN
# bits >> SHIFT of the smallest magnitude that is not bin 0
FIRST = (127 + MIN_EXPONENT) << MANTISSA_BITS


def bin_of(x: ArrayLike) -> NDArray[np.int64]:
    """Bin of each finite value, -PER_SIGN .. PER_SIGN."""
    values = np.asarray(x, dtype=np.float32)
    bits = values.view(np.uint32)
    magnitude = ((bits & np.uint32(0x7FFFFFFF)) >> np.uint32(SHIFT)).astype(np.int64) - FIRST + 1
    magnitude = np.clip(magnitude, 0, PER_SIGN)
    return np.where(bits >> np.uint32(31), -magnitude, magnitude)


def _edge(k: NDArray[np.int64]) -> NDArray[np.float64]:
    """Lower magnitude edge of bin k >= 1, exact."""
    step = k - 1
    mantissa = 1 + (step & ((1 << MANTISSA_BITS) - 1)) / (1 << MANTISSA_BITS)
    return np.ldexp(mantissa, MIN_EXPONENT + (step >> MANTISSA_BITS))


def edges(bins: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper edge of each bin in ascending x. The outermost bins are open; here they end
    where the next would begin.
    """
    k = np.asarray(bins, dtype=np.int64)
    magnitude = np.abs(k)
    near = np.where(magnitude > 0, _edge(np.maximum(magnitude, 1)), -(2.0**MIN_EXPONENT))
    far = _edge(magnitude + 1)
    return np.where(k < 0, -far, near), np.where(k < 0, -near, far)


def folded(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., CELLS, n) as a profile grows to (..., BINS, n) in ascending order of the bins."""
    positive, negative = cells[..., :PER_SIGN, :], cells[..., PER_SIGN : 2 * PER_SIGN, :]
    near_zero = cells[..., 2 * PER_SIGN : 2 * PER_SIGN + 1, :]
    every = np.concatenate([negative[..., ::-1, :], near_zero, positive], axis=-2)
    every[..., -1, :] += cells[..., -2, :]
    every[..., 0, :] += cells[..., -1, :]
    return every

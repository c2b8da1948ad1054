"""One pass over the input of a norm layer, on the CPU, for one image at a time (numba).

Every kernel reads x once and adds to the image's own accumulators, so the result does not depend on the number of threads:

    cells    (kinds, BINS, 6)  per token kind and bin of x: count, sum x, sum z, sum z^2, sum x^2, sum x z
    sums     (9, C)            per channel: sum x, sum x^2, min x, max x, then the same of z, then the count
    flagged  (rows or C)       rows (planes) that hold a value outside [low_c, high_c]: candidates for the tail

x is float32; `bits` is the same memory seen as int32, whose top bits are the bin (`probe.bins`). A kernel returns how many elements
are not finite in x or z; these enter no sum. Kernels release the GIL and start no threads: callers run them from their own.
Kernels are compiled once and cached on disk.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from probe import bins

SHIFT, FIRST, PER_SIGN = bins.SHIFT, bins.FIRST, bins.PER_SIGN
INFINITE = 0x7F800000

# reductions may be reordered (SIMD), NaN and inf keep their meaning
FAST = {"reassoc", "contract", "nsz", "arcp"}

_compile = njit(nogil=True, cache=True, fastmath=FAST, boundscheck=False, error_model="numpy")
_inline = njit(nogil=True, cache=True, fastmath=FAST, boundscheck=False, error_model="numpy", inline="always")


@_inline
def _add(cells: Any, bits: Any, x: Any, z: Any) -> None:
    """Count one finite element in its bin."""
    k = min(max(((bits & 0x7FFFFFFF) >> SHIFT) - FIRST + 1, 0), PER_SIGN)
    cell = cells[PER_SIGN - k if bits < 0 else PER_SIGN + k]
    x64, z64 = np.float64(x), np.float64(z)
    cell[0] += 1.0
    cell[1] += x64
    cell[2] += z64
    cell[3] += z64 * z64
    cell[4] += x64 * x64
    cell[5] += x64 * z64


@_inline
def _add_channel(sums: Any, c: Any, x: Any, z: Any) -> None:
    x64, z64 = np.float64(x), np.float64(z)
    sums[0, c] += x64
    sums[1, c] += x64 * x64
    sums[2, c] = min(sums[2, c], x64)
    sums[3, c] = max(sums[3, c], x64)
    sums[4, c] += z64
    sums[5, c] += z64 * z64
    sums[6, c] = min(sums[6, c], z64)
    sums[7, c] = max(sums[7, c], z64)


@_inline
def _outside(x: Any, low: Any, high: Any) -> bool:
    count = 0
    for c in range(x.shape[0]):
        count += (x[c] > high[c]) | (x[c] < low[c])
    return count > 0


@_compile
def token_rows(x, bits, eps, centered, kinds, low, high, cells, sums, means, sigmas, flagged):  # type: ignore[no-untyped-def]
    """LayerNorm (`centered`) or RMSNorm rows (R, C): z = (x - m) / sqrt(sigma^2 + eps) with the row's own m and sigma (m = 0 for RMS)."""
    rows, channels = x.shape
    bad = 0
    for r in range(rows):
        row = x[r]
        m = 0.0
        if centered:
            for c in range(channels):
                m += np.float64(row[c])
            m /= channels
        v = 0.0
        for c in range(channels):
            d = np.float64(row[c]) - m
            v += d * d
        v /= channels
        means[r] = m
        sigmas[r] = math.sqrt(v)
        scale = 1.0 / math.sqrt(v + eps)
        if not (math.isfinite(v) and math.isfinite(scale)):
            bad += channels
            continue
        cell = cells[kinds[r]]
        for c in range(channels):
            _add_channel(sums, c, row[c], (np.float64(row[c]) - m) * scale)
        row_bits = bits[r]
        for c in range(channels):
            _add(cell, row_bits[c], row[c], (np.float64(row[c]) - m) * scale)
        flagged[r] = _outside(row, low, high)
    sums[8] += rows - bad // channels
    return bad


@_compile
def planes(x, bits, mean, scale, low, high, cells, sums, flagged):  # type: ignore[no-untyped-def]
    """Channel planes (C, P) of one image: z = (x - mean_c) * scale_c (BatchNorm, InstanceNorm, GroupNorm)."""
    channels, size = x.shape
    bad = 0
    for c in range(channels):
        plane = x[c]
        m, s = np.float64(mean[c]), np.float64(scale[c])
        total, squares = 0.0, 0.0
        smallest, largest = np.float32(np.inf), np.float32(-np.inf)
        for p in range(size):
            value = plane[p]
            total += np.float64(value)
            squares += np.float64(value) * np.float64(value)
            smallest = min(smallest, value)
            largest = max(largest, value)
        if not (math.isfinite(squares) and math.isfinite(m) and math.isfinite(s)):
            bad += size
            continue
        sums[0, c] += total
        sums[1, c] += squares
        sums[2, c] = min(sums[2, c], np.float64(smallest))
        sums[3, c] = max(sums[3, c], np.float64(largest))
        sums[4, c] += s * (total - size * m)
        sums[5, c] += s * s * (squares - 2.0 * m * total + size * m * m)
        first, last = (smallest - m) * s, (largest - m) * s
        sums[8, c] += size
        sums[6, c] = min(sums[6, c], min(first, last))
        sums[7, c] = max(sums[7, c], max(first, last))
        plane_bits = bits[c]
        for p in range(size):
            _add(cells, plane_bits[p], plane[p], (np.float64(plane[p]) - m) * s)
        flagged[c] = largest > high[c] or smallest < low[c]
    return bad


@_compile
def given_rows(x, bits, z, kinds, low, high, cells, sums, flagged):  # type: ignore[no-untyped-def]
    """Rows (R, C) whose normalized values z are given."""
    rows, channels = x.shape
    bad = 0
    for r in range(rows):
        cell = cells[kinds[r]]
        for c in range(channels):
            if math.isfinite(x[r, c]) and math.isfinite(z[r, c]):
                sums[8, c] += 1.0
                _add_channel(sums, c, x[r, c], z[r, c])
                _add(cell, bits[r, c], x[r, c], z[r, c])
            else:
                bad += 1
        flagged[r] = _outside(x[r], low, high)
    return bad


@_compile
def scan_rows(x, flagged, low, high, start, values, rows, channels):  # type: ignore[no-untyped-def]
    """Collect the values outside [low_c, high_c] of flagged rows from row `start` on. Returns (collected, next row): it stops before a
    row that might not fit, so that the caller can raise the bounds and go on."""
    count, width = 0, x.shape[1]
    for r in range(start, x.shape[0]):
        if not flagged[r]:
            continue
        if count + width > values.shape[0]:
            return count, r
        for c in range(width):
            value = x[r, c]
            if math.isfinite(value) and (value > high[c] or value < low[c]):
                values[count], rows[count], channels[count] = value, r, c
                count += 1
    return count, x.shape[0]


@_compile
def scan_planes(x, flagged, low, high, start, values, rows, channels):  # type: ignore[no-untyped-def]
    """`scan_rows` for planes (C, P); `start` and the returned position count channels."""
    count, size = 0, x.shape[1]
    for c in range(start, x.shape[0]):
        if not flagged[c]:
            continue
        if count + size > values.shape[0]:
            return count, c
        for p in range(size):
            value = x[c, p]
            if math.isfinite(value) and (value > high[c] or value < low[c]):
                values[count], rows[count], channels[count] = value, p, c
                count += 1
    return count, x.shape[0]

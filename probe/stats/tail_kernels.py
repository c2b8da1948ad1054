"""Collecting and capping the extreme values of a layer, on the CPU (numba)."""

from __future__ import annotations

import math

import numpy as np

from probe.compiling import compiled

_compile = compiled(
    nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy"
)


@_compile
def scan_rows(x, flagged, low, high, start, values, rows, channels):  # type: ignore[no-untyped-def]
    """Collect the values outside [low_c, high_c] of flagged rows from row `start` on. Returns
    (collected, next row): it stops before a row that might not fit, so that the caller can raise
    the bounds and go on."""
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


@_compile
def capped(order, key, channel, cap, kept, bound):  # type: ignore[no-untyped-def]
    """Fill `kept` with the first indices of `order` of which at most `cap` share a channel; returns
    how many. bound (C,) becomes the key beyond which no element of the channel can enter, where
    there is one."""
    seen = np.zeros(bound.shape[0], np.int64)
    count = 0
    for index in order:
        c = channel[index]
        seen[c] += 1
        if seen[c] > cap:
            continue
        if seen[c] == cap:
            bound[c] = key[index]
        kept[count] = index
        count += 1
        if count == kept.shape[0]:
            for other in range(bound.shape[0]):
                bound[other] = min(bound[other], key[index])
            break
    return count

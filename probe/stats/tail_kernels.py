"""Collecting and capping the extreme values of a layer, on the CPU (numba)."""

from __future__ import annotations

import math

import numpy as np

from probe.compiling import compiled

_compile = compiled(
    nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy"
)


@_compile
def collect_outside(line, at, along_rows, low, high, outside):  # type: ignore[no-untyped-def]
    """Note the values outside the bounds of a row (all channels of row `at`; `along_rows`) or of a
    plane (all positions of channel `at`). Is there one?"""
    values, rows, channels, number = outside
    before = number[0]
    for k in range(line.shape[0]):
        c, row = (k, at) if along_rows else (at, k)
        if (line[k] > high[c] or line[k] < low[c]) and math.isfinite(line[k]):
            if number[0] < values.shape[0]:
                values[number[0]], rows[number[0]], channels[number[0]] = line[k], row, c
            number[0] += 1
    return number[0] > before


@_compile
def scan(x, along_rows, flagged, low, high, start, outside):  # type: ignore[no-untyped-def]
    """Collect the values outside the bounds of the flagged rows (R, C; `along_rows`) or planes (C,
    P) from number `start` on. Returns the next one: it stops before one that might not fit, so that
    the caller can raise the bounds and go on."""
    number, room = outside[3], outside[0].shape[0]
    number[0] = 0
    for at in range(start, x.shape[0]):
        if flagged[at]:
            if number[0] + x.shape[1] > room:
                return at
            collect_outside(x[at], at, along_rows, low, high, outside)
    return x.shape[0]


@_compile
def last_within_cap(key, channel, cap, bound):  # type: ignore[no-untyped-def]
    """bound (C,) becomes the cap-th smallest key of each channel; inf where there are fewer."""
    smallest = np.full((bound.shape[0], cap), np.inf, key.dtype)  # of each channel, in order
    for i in range(key.shape[0]):
        best = smallest[channel[i]]
        if key[i] < best[cap - 1]:
            at = cap - 1
            while at > 0 and best[at - 1] > key[i]:
                best[at] = best[at - 1]
                at -= 1
            best[at] = key[i]
    bound[:] = smallest[:, cap - 1]


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

"""One pass over the input of a norm layer, on the CPU (numba).

`token_rows`, `planes` and `given_rows` read a batch. Each thread that calls one with the same
arguments takes the images of the next jackknife group, until there are no more; a group has cells
of its own and its images follow in order, so the numbers do not depend on the number of threads.

    deal     how images are dealt out, see `probe.stats.turns.next_image`; its last part are the
             groups (G,)
    bad      (G,)                    how many elements are not finite in x or z; these enter no sum
    cells    (kinds, GROUPS, CELLS, CELL_WIDTH)  what is summed per token kind, group and bin of x
    sums     (B, ChannelSum, C)      what is summed per channel of an image; any values before
    flagged  (R) or (B, C)           rows (planes) that hold a value outside [low_c, high_c]:
                                     candidates for the tail
    outside  values, rows and channels (B, N) of these, while they are in the cache, and how many
             (B,) there are; more than N: there was no room for all

x comes from memory once, and no other thread adds to the same cells and sums meanwhile. How these
are added to is in `cell_kernels` and `channel_kernels`. `CellSum` and `ChannelSum` name the last
axis of cells and the rows of sums (`probe.stats.sums`); numba takes their values as constants when
it compiles (the members themselves only from 0.68 on).

x is float32; `bits` is the same memory seen as int32, whose top bits are the bin (`probe.bins`).
Kernels release the GIL and start no threads: callers run them from their own. Kernels are compiled
once and kept on disk (`probe.compiling`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from probe.stats.cell_kernels import count_elements, find_cells
from probe.stats.channel_kernels import add_one, add_rows, begin
from probe.stats.compile_kernels import inlined, kernel, part
from probe.stats.sums import ChannelSum
from probe.stats.tail_kernels import collect_outside
from probe.stats.turns import next_image


@part
def _count_row(cells, bits, row, m, scale, indices, pairs):  # type: ignore[no-untyped-def]
    """Count a row or plane of finite values in the bins; indices (n,) and pairs (2 n,) are room to
    work in."""
    size = row.shape[0]
    find_cells(bits, indices)
    for c in range(size):
        x = np.float64(row[c])
        pairs[2 * c] = x
        pairs[2 * c + 1] = (x - m) * scale
    count_elements(cells, indices[:size], pairs)


@part
def _sum(row: Any) -> Any:
    total = 0.0
    for c in range(row.shape[0]):
        total += np.float64(row[c])
    return total


@part
def _sum_of_squares(row: Any, center: Any) -> Any:
    total = 0.0
    for c in range(row.shape[0]):
        d = np.float64(row[c]) - center
        total += d * d
    return total


@part
def _reduce_plane(plane: Any, bits: Any, ends: Any) -> Any:
    """Sum and sum of squares of float32 values; the smallest and largest of them, where all are
    finite, into ends (2,), as bits. Ordered as integers (the magnitude bits of negative numbers
    flipped), because the compiler vectorizes a minimum of integers and not one of floats."""
    total, squares = 0.0, 0.0
    smallest, largest = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
    for p in range(plane.shape[0]):
        x = np.float64(plane[p])
        total += x
        squares += x * x
        ordered = bits[p] ^ ((bits[p] >> np.int32(31)) & np.int32(0x7FFFFFFF))
        smallest = min(smallest, ordered)
        largest = max(largest, ordered)
    ends[0] = smallest ^ ((smallest >> np.int32(31)) & np.int32(0x7FFFFFFF))
    ends[1] = largest ^ ((largest >> np.int32(31)) & np.int32(0x7FFFFFFF))
    return total, squares


@kernel
def moments_of_rows(x: Any, eps: Any, centered: Any) -> Any:
    """Mean (0 if not `centered`), sigma and 1/sqrt(sigma^2 + eps) (R, 3) of rows (R, C)."""
    rows, channels = x.shape
    moments = np.empty((rows, 3))
    for r in range(rows):
        m = _sum(x[r]) / channels if centered else 0.0
        v = _sum_of_squares(x[r], m) / channels
        moments[r, 0], moments[r, 1], moments[r, 2] = m, math.sqrt(v), 1.0 / math.sqrt(v + eps)
    return moments


@inlined
def _outside_of(outside: Any, b: Any) -> Any:
    """The part of one image."""
    values, rows, channels, number = outside
    return values[b], rows[b], channels[b], number[b : b + 1]


@kernel
def token_rows(  # type: ignore[no-untyped-def]
    deal, x, eps, centered, starts, kinds, bounds, cells, sums, moments, flagged, outside, bad
):
    """LayerNorm (`centered`) or RMSNorm rows (R, C): z = (x - m) / sqrt(sigma^2 + eps), the row's
    own m (0 for RMS) and sigma, which go to moments (2, R). Those of image b begin at starts[b].
    """
    groups, bits, mine = deal[3], x.view(np.int32), np.full(2, -1)
    b = next_image(deal, mine)
    while b >= 0:
        first, end = starts[b], starts[b + 1]
        bad[mine[0]] += _token_image(
            x[first:end],
            bits[first:end],
            eps,
            centered,
            kinds[first:end],
            bounds[0],
            bounds[1],
            cells[:, groups[mine[0]]],
            sums[b],
            moments[0, first:end],
            moments[1, first:end],
            flagged[first:end],
            _outside_of(outside, b),
        )
        b = next_image(deal, mine)


@part
def _token_image(  # type: ignore[no-untyped-def]
    x, bits, eps, centered, kinds, low, high, cells, sums, means, sigmas, flagged, outside
):
    rows, channels = x.shape
    indices, pairs = np.empty(channels, np.int32), np.empty(2 * channels)
    finite, row_means, row_scales = np.empty(rows, np.int64), np.empty(rows), np.empty(rows)
    begin(sums)
    number = 0
    for r in range(rows):
        row = x[r]
        m = _sum(row) / channels if centered else 0.0
        v = _sum_of_squares(row, m) / channels
        means[r], sigmas[r] = m, math.sqrt(v)
        scale = 1.0 / math.sqrt(v + eps)
        if not (math.isfinite(v) and math.isfinite(scale)):
            continue
        _count_row(cells[kinds[r]], bits[r], row, m, scale, indices, pairs)
        finite[number], row_means[number], row_scales[number] = r, m, scale
        number += 1
    chosen = finite[:number], row_means[:number], row_scales[:number]
    add_rows(sums, x, chosen[0], chosen[1], chosen[2], low, high, flagged, outside)
    sums[ChannelSum.COUNT.value] = number
    return (rows - number) * channels


@kernel
def planes(deal, x, mean, scale, binned, bounds, cells, sums, flagged, outside, bad):  # type: ignore[no-untyped-def]
    """Channel planes (B, C, P): z = (x - mean_c) * scale_c, both (B, C) or, equal for all images,
    (1, C) (BatchNorm, InstanceNorm, GroupNorm).

    Without `binned` nothing enters the cells: where every channel is a line, its moments say all.
    """
    groups, bits, mine = deal[3], x.view(np.int32), np.full(2, -1)
    b = next_image(deal, mine)
    while b >= 0:
        own = min(b, mean.shape[0] - 1)
        bad[mine[0]] += _plane_image(
            x[b],
            bits[b],
            mean[own],
            scale[own],
            binned,
            bounds[0],
            bounds[1],
            cells[0, groups[mine[0]]],
            sums[b],
            flagged[b],
            _outside_of(outside, b),
        )
        b = next_image(deal, mine)


@part
def _plane_image(x, bits, mean, scale, binned, low, high, cells, sums, flagged, outside):  # type: ignore[no-untyped-def]
    channels, size = x.shape
    bad = 0
    room = size if binned else 0
    indices, pairs = np.empty(room, np.int32), np.empty(2 * room)
    end_bits = np.empty(2, np.int32)
    ends = end_bits.view(np.float32)
    begin(sums)
    for c in range(channels):
        plane, plane_bits = x[c], bits[c]
        m, s = np.float64(mean[c]), np.float64(scale[c])
        total, squares = _reduce_plane(plane, plane_bits, end_bits)
        if not (math.isfinite(squares) and math.isfinite(m) and math.isfinite(s)):
            bad += size
            continue
        smallest, largest = np.float64(ends[0]), np.float64(ends[1])
        z_one, z_other = (smallest - m) * s, (largest - m) * s
        z_low, z_high = min(z_one, z_other), max(z_one, z_other)
        sums[ChannelSum.X.value, c], sums[ChannelSum.XX.value, c] = total, squares
        sums[ChannelSum.X_MIN.value, c], sums[ChannelSum.X_MAX.value, c] = smallest, largest
        sums[ChannelSum.Z.value, c] = s * (total - size * m)
        sums[ChannelSum.ZZ.value, c] = s * s * (squares - 2.0 * m * total + size * m * m)
        sums[ChannelSum.Z_MIN.value, c], sums[ChannelSum.Z_MAX.value, c] = z_low, z_high
        sums[ChannelSum.COUNT.value, c] = size
        if binned:
            _count_row(cells, plane_bits, plane, m, s, indices, pairs)
        if largest > high[c] or smallest < low[c]:
            flagged[c] = collect_outside(plane, c, False, low, high, outside)
    return bad


@kernel
def given_rows(deal, x, z, starts, kinds, bounds, cells, sums, flagged, outside, bad):  # type: ignore[no-untyped-def]
    """Rows (R, C) whose normalized values z are given. Those of image b begin at starts[b]."""
    groups, bits, mine = deal[3], x.view(np.int32), np.full(2, -1)
    b = next_image(deal, mine)
    while b >= 0:
        first, end = starts[b], starts[b + 1]
        bad[mine[0]] += _given_image(
            x[first:end],
            bits[first:end],
            z[first:end],
            kinds[first:end],
            bounds[0],
            bounds[1],
            cells[:, groups[mine[0]]],
            sums[b],
            flagged[first:end],
            _outside_of(outside, b),
        )
        b = next_image(deal, mine)


@part
def _given_image(x, bits, z, kinds, low, high, cells, sums, flagged, outside):  # type: ignore[no-untyped-def]
    rows, channels = x.shape
    finite_bits, indices = np.empty(channels, np.int32), np.empty(channels, np.int32)
    pairs = np.empty(2 * channels)
    begin(sums)
    bad = 0
    for r in range(rows):
        finite, is_outside = 0, False
        for c in range(channels):
            if not (math.isfinite(x[r, c]) and math.isfinite(z[r, c])):
                bad += 1
                continue
            is_outside |= x[r, c] > high[c] or x[r, c] < low[c]
            x64, z64 = np.float64(x[r, c]), np.float64(z[r, c])
            add_one(sums, c, x64, z64)
            sums[ChannelSum.COUNT.value, c] += 1.0
            finite_bits[finite] = bits[r, c]
            pairs[2 * finite], pairs[2 * finite + 1] = x64, z64
            finite += 1
        find_cells(finite_bits[:finite], indices)
        count_elements(cells[kinds[r]], indices[:finite], pairs)
        if is_outside:
            flagged[r] = collect_outside(x[r], r, True, low, high, outside)
    return bad

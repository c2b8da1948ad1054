"""One pass over the input of a norm layer, on the CPU, for one image at a time (numba).

Every kernel reads x once and adds to accumulators that no other thread touches meanwhile:

    cells    (kinds, CELLS, CELL_WIDTH)  what is summed per token kind and bin of x
    sums     (ChannelSum, C)             what is summed per channel of this image; any values before
    flagged  (rows or C)                 rows (planes) that hold a value outside [low_c, high_c]:
                                         candidates for the tail
    outside  values, rows and channels   those values, while they are in the cache, and how many
             (N,), number (1,)           there are; more than N: there was no room for all

`CellSum` and `ChannelSum` name the last axis of cells and the rows of sums (`probe.stats.sums`),
how cells are added to is in `cell_kernels`;
numba takes their values as constants when it compiles (the members themselves only from 0.68 on).

x is float32; `bits` is the same memory seen as int32, whose top bits are the bin (`probe.bins`). A
kernel returns how many elements are not finite in x or z; these enter no sum. Kernels release the
GIL and start no threads: callers run them from their own. Kernels are compiled once and kept on
disk (`probe.compiling`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from probe.compiling import compiled
from probe.stats.cell_kernels import count_elements, find_cells
from probe.stats.sums import ChannelSum
from probe.stats.tail_kernels import collect_outside

# Reductions may be reordered (SIMD); NaN and inf keep their meaning, so that a sum tells whether a
# row or plane is finite.
_compile = compiled(
    nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy"
)
# Only where there is no NaN: the compiler vectorizes min and max just where it need not care for
# it. The smallest and largest of nothing are infinite.
_finite = compiled(
    nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp", "nnan"}, error_model="numpy"
)
_inline = compiled(
    nogil=True,
    fastmath={"reassoc", "contract", "nsz", "arcp"},
    error_model="numpy",
    inline="always",
)


@_compile
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


@_inline
def _begin(sums: Any) -> None:
    """The sums (ChannelSum, C) of nothing."""
    sums[:] = 0.0
    sums[ChannelSum.X_MIN.value] = sums[ChannelSum.Z_MIN.value] = np.inf
    sums[ChannelSum.X_MAX.value] = sums[ChannelSum.Z_MAX.value] = -np.inf


@_finite
def add_images(sums: Any, of_images: Any) -> None:
    """Add the sums (B, ChannelSum, C) of images, in their order, to sums (ChannelSum, C)."""
    for b in range(of_images.shape[0]):
        for row in range(sums.shape[0]):
            mine, others = sums[row], of_images[b, row]
            if row == ChannelSum.X_MIN.value or row == ChannelSum.Z_MIN.value:
                for c in range(mine.shape[0]):
                    mine[c] = min(mine[c], others[c])
            elif row == ChannelSum.X_MAX.value or row == ChannelSum.Z_MAX.value:
                for c in range(mine.shape[0]):
                    mine[c] = max(mine[c], others[c])
            else:
                for c in range(mine.shape[0]):
                    mine[c] += others[c]


@_compile
def _sum(row: Any) -> Any:
    total = 0.0
    for c in range(row.shape[0]):
        total += np.float64(row[c])
    return total


@_compile
def _sum_of_squares(row: Any, center: Any) -> Any:
    total = 0.0
    for c in range(row.shape[0]):
        d = np.float64(row[c]) - center
        total += d * d
    return total


@_compile
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


@_finite
def _any_outside(row: Any, low: Any, high: Any) -> Any:
    count = 0
    for c in range(row.shape[0]):
        count += (row[c] > high[c]) | (row[c] < low[c])
    return count > 0


@_finite
def _add_four(sums, x0, x1, x2, x3, means, scales, low, high):  # type: ignore[no-untyped-def]
    """Add four rows of finite values, each normalized by its mean and scale, to the sums of their
    channels: sums are loaded and stored once for the four. Is any value outside the bounds?"""
    x_sum, x_squares = sums[ChannelSum.X.value], sums[ChannelSum.XX.value]
    x_min, x_max = sums[ChannelSum.X_MIN.value], sums[ChannelSum.X_MAX.value]
    z_sum, z_squares = sums[ChannelSum.Z.value], sums[ChannelSum.ZZ.value]
    z_min, z_max = sums[ChannelSum.Z_MIN.value], sums[ChannelSum.Z_MAX.value]
    outside = 0
    for c in range(x0.shape[0]):
        a, b = np.float64(x0[c]), np.float64(x1[c])
        d, e = np.float64(x2[c]), np.float64(x3[c])
        smallest, largest = min(min(a, b), min(d, e)), max(max(a, b), max(d, e))
        x_sum[c] += (a + b) + (d + e)
        x_squares[c] += (a * a + b * b) + (d * d + e * e)
        x_min[c] = min(x_min[c], smallest)
        x_max[c] = max(x_max[c], largest)
        outside += (largest > high[c]) | (smallest < low[c])
    m0, m1, m2, m3 = means[0], means[1], means[2], means[3]
    s0, s1, s2, s3 = scales[0], scales[1], scales[2], scales[3]
    for c in range(x0.shape[0]):
        a, b = (np.float64(x0[c]) - m0) * s0, (np.float64(x1[c]) - m1) * s1
        d, e = (np.float64(x2[c]) - m2) * s2, (np.float64(x3[c]) - m3) * s3
        z_sum[c] += (a + b) + (d + e)
        z_squares[c] += (a * a + b * b) + (d * d + e * e)
        z_min[c] = min(z_min[c], min(min(a, b), min(d, e)))
        z_max[c] = max(z_max[c], max(max(a, b), max(d, e)))
    return outside > 0


@_inline
def _add_one(sums: Any, c: Any, x: Any, z: Any) -> None:
    """Add one finite element to the sums of its channel, but for their count."""
    sums[ChannelSum.X.value, c] += x
    sums[ChannelSum.XX.value, c] += x * x
    sums[ChannelSum.X_MIN.value, c] = min(sums[ChannelSum.X_MIN.value, c], x)
    sums[ChannelSum.X_MAX.value, c] = max(sums[ChannelSum.X_MAX.value, c], x)
    sums[ChannelSum.Z.value, c] += z
    sums[ChannelSum.ZZ.value, c] += z * z
    sums[ChannelSum.Z_MIN.value, c] = min(sums[ChannelSum.Z_MIN.value, c], z)
    sums[ChannelSum.Z_MAX.value, c] = max(sums[ChannelSum.Z_MAX.value, c], z)


@_compile
def _add_channels(sums, x, four, count, means, scales, low, high, flagged, outside):  # type: ignore[no-untyped-def]
    """Add the first `count` of the rows x[four] to the sums of their channels, and collect what is
    outside the bounds."""
    if count == 4:
        if not _add_four(
            sums, x[four[0]], x[four[1]], x[four[2]], x[four[3]], means, scales, low, high
        ):
            return
    else:
        for k in range(count):
            for c in range(x.shape[1]):
                value = np.float64(x[four[k], c])
                _add_one(sums, c, value, (value - means[k]) * scales[k])
    for k in range(count):
        if _any_outside(x[four[k]], low, high):
            flagged[four[k]] = collect_outside(x[four[k]], four[k], True, low, high, outside)


@_compile
def token_rows(  # type: ignore[no-untyped-def]
    x, bits, eps, centered, kinds, low, high, cells, sums, means, sigmas, flagged, outside
):
    """LayerNorm (`centered`) or RMSNorm rows (R, C): z = (x - m) / sqrt(sigma^2 + eps), the row's
    own m (0 for RMS) and sigma.
    """
    rows, channels = x.shape
    indices, pairs = np.empty(channels, np.int32), np.empty(2 * channels)
    four, row_means, row_scales = np.empty(4, np.int64), np.empty(4), np.empty(4)
    _begin(sums)
    bad, waiting = 0, 0
    for r in range(rows):
        row = x[r]
        m = _sum(row) / channels if centered else 0.0
        v = _sum_of_squares(row, m) / channels
        means[r], sigmas[r] = m, math.sqrt(v)
        scale = 1.0 / math.sqrt(v + eps)
        if not (math.isfinite(v) and math.isfinite(scale)):
            bad += channels
            continue
        _count_row(cells[kinds[r]], bits[r], row, m, scale, indices, pairs)
        four[waiting], row_means[waiting], row_scales[waiting] = r, m, scale
        waiting += 1
        if waiting == 4:
            _add_channels(sums, x, four, 4, row_means, row_scales, low, high, flagged, outside)
            waiting = 0
    _add_channels(sums, x, four, waiting, row_means, row_scales, low, high, flagged, outside)
    sums[ChannelSum.COUNT.value] = rows - bad // channels
    return bad


@_compile
def planes(x, bits, mean, scale, binned, low, high, cells, sums, flagged, outside):  # type: ignore[no-untyped-def]
    """Channel planes (C, P) of one image: z = (x - mean_c) * scale_c (BatchNorm, InstanceNorm,
    GroupNorm).

    Without `binned` nothing enters the cells: where every channel is a line, its moments say all.
    """
    channels, size = x.shape
    bad = 0
    room = size if binned else 0
    indices, pairs = np.empty(room, np.int32), np.empty(2 * room)
    end_bits = np.empty(2, np.int32)
    ends = end_bits.view(np.float32)
    _begin(sums)
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


@_compile
def given_rows(x, bits, z, kinds, low, high, cells, sums, flagged, outside):  # type: ignore[no-untyped-def]
    """Rows (R, C) whose normalized values z are given."""
    rows, channels = x.shape
    finite_bits, indices = np.empty(channels, np.int32), np.empty(channels, np.int32)
    pairs = np.empty(2 * channels)
    _begin(sums)
    bad = 0
    for r in range(rows):
        finite, is_outside = 0, False
        for c in range(channels):
            if not (math.isfinite(x[r, c]) and math.isfinite(z[r, c])):
                bad += 1
                continue
            is_outside |= x[r, c] > high[c] or x[r, c] < low[c]
            x64, z64 = np.float64(x[r, c]), np.float64(z[r, c])
            _add_one(sums, c, x64, z64)
            sums[ChannelSum.COUNT.value, c] += 1.0
            finite_bits[finite] = bits[r, c]
            pairs[2 * finite], pairs[2 * finite + 1] = x64, z64
            finite += 1
        find_cells(finite_bits[:finite], indices)
        count_elements(cells[kinds[r]], indices[:finite], pairs)
        if is_outside:
            flagged[r] = collect_outside(x[r], r, True, low, high, outside)
    return bad

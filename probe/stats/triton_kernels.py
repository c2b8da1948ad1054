"""One pass over the input of a norm layer on an accelerator (Triton): the counterpart of `kernels`.

x is read once, in its own dtype and by its strides, a tile of ROWS positions and WIDTH channels at
a time. A program goes over some positions of one image and keeps in registers

    per channel   sum and sum of squares of x and z in float64, their ends, the count

which it writes once, so that a sum over programs in a fixed order ends the work: no atomics, the
same bits every time. float64 costs little here: a data-center processor does it at half the speed
of float32, and what a tile waits for is memory.

The bins of a profile (2,051 cells of six sums) do not fit into registers, and Triton gives no
access to shared memory by address; its `tl.histogram` counts there but does not weigh. Sorting a
tile by bin first would save additions to memory but takes some 55 to 80 compare-and-exchange steps
for 1,024 to 4,096 elements, more than it saves. So cells are added to in global memory, in copies
(`copy_of` says an image's) that are few enough to stay in the L2 cache and many enough that
programs seldom meet at a cell; relaxed atomics, whose result is not used, do not wait. For token
norms they add whole numbers, whose order does not matter: see `fixed_point`. None of this has been
timed.

Elements outside [low_c, high_c] are candidates for the tail: a prefix sum over the tile packs them.
Where there is no room for all (in the first batch, when nothing is known yet), the host
cannot ask for more, as the layer's tensors are gone when it looks: see `triton_farthest`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from probe import bins
from probe.stats import fixed_point
from probe.stats.sums import CELL_WIDTH, CellSum, ChannelSum

# How z comes about; the norm types of `observed`.
TOKEN, PLANE, GIVEN = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)

_SHIFT, _FIRST = tl.constexpr(bins.SHIFT), tl.constexpr(bins.FIRST)
_PER_SIGN, _NEAR_ZERO = tl.constexpr(bins.PER_SIGN), tl.constexpr(fixed_point.NEAR_ZERO)
_FIRST_OPEN, _OPEN = tl.constexpr(fixed_point.FIRST_OPEN), tl.constexpr(fixed_point.OPEN)
_OPEN_EXPONENT = tl.constexpr(127 + bins.MAX_EXPONENT + 1)  # biased, as in the bits
_SMALLEST = tl.constexpr(2.0**bins.MIN_EXPONENT)
_FIXED_CELLS, _CELL_WIDTH = tl.constexpr(fixed_point.FIXED_CELLS), tl.constexpr(CELL_WIDTH)

_X, _Z = tl.constexpr(CellSum.X.value), tl.constexpr(CellSum.Z.value)
_XX, _ZZ = tl.constexpr(CellSum.XX.value), tl.constexpr(CellSum.ZZ.value)
_XZ, _COUNT = tl.constexpr(CellSum.XZ.value), tl.constexpr(CellSum.COUNT.value)

_ROWS_OF_SUMS = tl.constexpr(len(ChannelSum))
_SUM_X, _SUM_XX = tl.constexpr(ChannelSum.X.value), tl.constexpr(ChannelSum.XX.value)
_X_MIN, _X_MAX = tl.constexpr(ChannelSum.X_MIN.value), tl.constexpr(ChannelSum.X_MAX.value)
_SUM_Z, _SUM_ZZ = tl.constexpr(ChannelSum.Z.value), tl.constexpr(ChannelSum.ZZ.value)
_Z_MIN, _Z_MAX = tl.constexpr(ChannelSum.Z_MIN.value), tl.constexpr(ChannelSum.Z_MAX.value)
_SUM_COUNT = tl.constexpr(ChannelSum.COUNT.value)

_INF = tl.constexpr(float("inf"))


@triton.jit
def _token_statistics(x, there, channels, eps, CENTERED: tl.constexpr):
    """Mean (0 for RMS), sigma and 1 / sqrt(sigma^2 + eps) of rows (ROWS, WIDTH) float64; the last
    is NaN where a row is not finite."""
    mean = tl.sum(x, axis=1) / channels
    if not CENTERED:
        mean = tl.zeros_like(mean)
    difference = tl.where(there, x - mean[:, None], 0.0)
    variance = tl.sum(difference * difference, axis=1) / channels
    scale = tl.where(tl.abs(variance) < _INF, 1.0 / tl.sqrt(variance + eps), float("nan"))
    return mean, tl.sqrt(variance), scale


@triton.jit
def _cell_and_share(x):
    """The fixed cell of finite float32 values, and the values in units of their cells (float64)."""
    bits = x.to(tl.int32, bitcast=True)
    negative = tl.where(bits < 0, 1, 0)
    k = ((bits & 0x7FFFFFFF) >> _SHIFT) - _FIRST
    exponent = (bits >> 23) & 0xFF
    is_near_zero, is_open = k < 0, k >= _PER_SIGN
    index = k + _PER_SIGN * negative
    index = tl.where(is_open, _FIRST_OPEN + _OPEN * negative + exponent - _OPEN_EXPONENT, index)
    index = tl.where(is_near_zero, _NEAR_ZERO, index)
    # the same sign and mantissa with the exponent of one
    share = ((bits & ~0x7F800000) | 0x3F800000).to(tl.float32, bitcast=True).to(tl.float64)
    return index, tl.where(is_near_zero, x.to(tl.float64) / _SMALLEST, share)


@triton.jit
def _add(cells, quantity, quantum, kept, WHOLE: tl.constexpr):
    quantity *= quantum
    if WHOLE:
        quantity = tl.floor(quantity + 0.5).to(tl.int64)
    tl.atomic_add(cells, quantity, mask=kept, sem="relaxed")


@triton.jit
def _count(cells, x, z, kept, quantum, WHOLE: tl.constexpr):
    """Count elements in the cells of their copies (pointers, one per element); z in its unit."""
    index, x = _cell_and_share(tl.where(kept, x, 0.0))
    z = tl.where(kept, z, 0.0)
    cells += index * _CELL_WIDTH
    _add(cells + _X, x, quantum, kept, WHOLE)
    _add(cells + _Z, z, quantum, kept, WHOLE)
    _add(cells + _XX, x * x, quantum, kept, WHOLE)
    _add(cells + _ZZ, z * z, quantum, kept, WHOLE)
    _add(cells + _XZ, x * z, quantum, kept, WHOLE)
    _add(cells + _COUNT, tl.where(kept, 1.0, 0.0).to(tl.float64) / quantum, quantum, kept, WHOLE)


@triton.jit
def _collect(x, place, outside, values, places, taken, capacity, SIZE: tl.constexpr):
    """Append the values that lie outside of the bounds, and where they stand; beyond the capacity
    only their number counts."""
    outside = tl.reshape(outside, (SIZE,)).to(tl.int32)
    number = tl.sum(outside, axis=0)
    if number > 0:
        slot = tl.atomic_add(taken, number) + tl.cumsum(outside, axis=0) - 1
        fits = (outside > 0) & (slot < capacity)
        tl.store(values + slot, tl.reshape(x, (SIZE,)), mask=fits)
        tl.store(places + slot, tl.reshape(place, (SIZE,)), mask=fits)


@triton.jit
def reduce(
    x, z, plane_mean, plane_scale, kinds, valid, copy_of, low, high, eps,
    cells, sums, bad, means, sigmas, values, places, taken,
    x_image, x_row, x_channel, z_image, z_row, z_channel,
    positions, channels, rows_each, z_unit, quantum, capacity,
    NORM: tl.constexpr, CENTERED: tl.constexpr, BINNED: tl.constexpr, MASKED: tl.constexpr,
    WHOLE: tl.constexpr, COLLECT: tl.constexpr, KINDS: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Program (image, part of its positions, block of channels).

    Read: x, and z if GIVEN, (B, P, C) by strides; plane_mean, plane_scale (B, C) if PLANE; kinds
    (P,); valid (B, P) if MASKED; copy_of (B,); low, high (C,) if COLLECT; eps (1,) float64.
    Written: sums (B, parts, ChannelSum, C) and bad (B, parts, blocks), all of them; means, sigmas
    (B, P) if TOKEN. Added to: cells (copies, KINDS, FIXED_CELLS, CELL_WIDTH), int64 if WHOLE
    else float64, if BINNED; values, places (capacity,) and taken (1,) if COLLECT.
    """
    image, part, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    parts, blocks = tl.num_programs(1), tl.num_programs(2)
    channel = block * WIDTH + tl.arange(0, WIDTH)
    in_width = channel < channels
    x += image.to(tl.int64) * x_image + channel[None, :].to(tl.int64) * x_channel
    if NORM == GIVEN:
        z += image.to(tl.int64) * z_image + channel[None, :].to(tl.int64) * z_channel
    if NORM == PLANE:
        of_plane = image * channels + channel
        mean = tl.load(plane_mean + of_plane, mask=in_width, other=0.0).to(tl.float64)[None, :]
        scale = tl.load(plane_scale + of_plane, mask=in_width, other=0.0).to(tl.float64)[None, :]
    if COLLECT:
        lowest = tl.load(low + channel, mask=in_width, other=-_INF)[None, :]
        highest = tl.load(high + channel, mask=in_width, other=_INF)[None, :]
    if BINNED:
        per_z = 1.0 / z_unit
        copy = tl.load(copy_of + image).to(tl.int64) * KINDS

    sum_x = tl.zeros((WIDTH,), tl.float64)
    sum_xx, sum_z, sum_zz = sum_x, sum_x, sum_x
    x_min, x_max = tl.full((WIDTH,), _INF, tl.float32), tl.full((WIDTH,), -_INF, tl.float32)
    z_min, z_max = tl.full((WIDTH,), _INF, tl.float64), tl.full((WIDTH,), -_INF, tl.float64)
    count, not_finite = tl.zeros((WIDTH,), tl.int32), tl.zeros((WIDTH,), tl.int32)

    first = part * rows_each
    for start in range(first, tl.minimum(first + rows_each, positions), ROWS):
        position = start + tl.arange(0, ROWS)
        token = image * positions + position
        in_rows = position < tl.minimum(first + rows_each, positions)
        real = in_rows
        if MASKED:
            real = real & (tl.load(valid + token, mask=in_rows, other=0) > 0)
        there = in_rows[:, None] & in_width[None, :]
        row = position[:, None].to(tl.int64)
        value = tl.load(x + row * x_row, mask=there, other=0.0).to(tl.float32)
        exact = value.to(tl.float64)
        if NORM == TOKEN:
            m, sigma, s = _token_statistics(exact, there, channels, tl.load(eps), CENTERED)
            tl.store(means + token, tl.where(real, m, float("nan")), mask=in_rows)
            tl.store(sigmas + token, tl.where(real, sigma, float("nan")), mask=in_rows)
            normalized = (exact - m[:, None]) * s[:, None]
        elif NORM == PLANE:
            normalized = (exact - mean) * scale
        else:
            given = tl.load(z + row * z_row, mask=there, other=0.0)
            normalized = given.to(tl.float32).to(tl.float64)

        there = there & real[:, None]
        kept = there & (tl.abs(exact) < _INF) & (tl.abs(normalized) < _INF)
        not_finite += tl.sum((there & ~kept).to(tl.int32), axis=0)
        count += tl.sum(kept.to(tl.int32), axis=0)
        kept_x, kept_z = tl.where(kept, exact, 0.0), tl.where(kept, normalized, 0.0)
        sum_x += tl.sum(kept_x, axis=0)
        sum_xx += tl.sum(kept_x * kept_x, axis=0)
        sum_z += tl.sum(kept_z, axis=0)
        sum_zz += tl.sum(kept_z * kept_z, axis=0)
        x_min = tl.minimum(x_min, tl.min(tl.where(kept, value, _INF), axis=0))
        x_max = tl.maximum(x_max, tl.max(tl.where(kept, value, -_INF), axis=0))
        z_min = tl.minimum(z_min, tl.min(tl.where(kept, normalized, _INF), axis=0))
        z_max = tl.maximum(z_max, tl.max(tl.where(kept, normalized, -_INF), axis=0))

        if BINNED:
            kind = tl.zeros((ROWS,), tl.int64)
            if KINDS > 1:
                kind = tl.load(kinds + position, mask=in_rows, other=0).to(tl.int64)
            of_row = (copy + kind) * (_FIXED_CELLS * _CELL_WIDTH)
            own = cells + of_row[:, None] + tl.zeros((ROWS, WIDTH), tl.int32)
            _count(own, value, normalized * per_z, kept, quantum, WHOLE)
        if COLLECT:
            outside = kept & ((value > highest) | (value < lowest))
            place = token[:, None].to(tl.int64) * channels + channel[None, :]
            _collect(value, place, outside, values, places, taken, capacity, ROWS * WIDTH)

    tl.store(bad + (image * parts + part) * blocks + block, tl.sum(not_finite, axis=0))
    sums += (image * parts + part).to(tl.int64) * _ROWS_OF_SUMS * channels + channel
    tl.store(sums + _SUM_X * channels, sum_x, mask=in_width)
    tl.store(sums + _SUM_XX * channels, sum_xx, mask=in_width)
    tl.store(sums + _X_MIN * channels, x_min.to(tl.float64), mask=in_width)
    tl.store(sums + _X_MAX * channels, x_max.to(tl.float64), mask=in_width)
    tl.store(sums + _SUM_Z * channels, sum_z, mask=in_width)
    tl.store(sums + _SUM_ZZ * channels, sum_zz, mask=in_width)
    tl.store(sums + _Z_MIN * channels, z_min, mask=in_width)
    tl.store(sums + _Z_MAX * channels, z_max, mask=in_width)
    tl.store(sums + _SUM_COUNT * channels, count.to(tl.float64), mask=in_width)

"""The farthest values of each channel, for a batch of which more lie outside of the bounds of the
tail than fit into its list (Triton).

It is enqueued behind every reduction and ends at once where the list is long enough: whether it is
only the device knows. Else it finds the key that so many values of a channel reach, bit by bit from
the top, and takes what lies beyond: 34 times over x, which happens in the first batch of a layer,
when there are no bounds yet, and where the next images are of another kind.
"""

from __future__ import annotations

import triton
import triton.language as tl

from probe.stats.triton_kernels import PLANE, TOKEN

_INF = tl.constexpr(float("inf"))
_BITS = tl.constexpr(32)


@triton.jit
def _key(x):
    """int64 from 0 on, in the order of float32 values."""
    bits = x.to(tl.int32, bitcast=True).to(tl.int64)
    return tl.where(bits < 0, -1 - bits, bits + 2147483648)


@triton.jit
def _keyed(
    x, z, plane_mean, plane_scale, valid, eps, sigmas, start, channel, in_width, arm,
    x_image, x_row, x_channel, z_image, z_row, z_channel, rows, positions, channels,
    NORM: tl.constexpr, MASKED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Values (ROWS, WIDTH) and their keys, the farther the larger; -1 where an element enters no
    sum."""
    row = start + tl.arange(0, ROWS)
    in_rows = row < rows
    image = (row // positions).to(tl.int64)[:, None]
    position = (row % positions).to(tl.int64)[:, None]
    kept = in_rows[:, None] & in_width[None, :]
    value = tl.load(
        x + image * x_image + position * x_row + channel[None, :] * x_channel, mask=kept, other=0.0
    ).to(tl.float32)
    if NORM == TOKEN:
        sigma = tl.load(sigmas + row, mask=in_rows, other=float("nan"))[:, None]
        kept = kept & (tl.abs(sigma) < _INF) & (sigma * sigma + tl.load(eps) > 0)
    elif NORM == PLANE:
        of_plane = image * channels + channel[None, :]
        mean = tl.load(plane_mean + of_plane, mask=kept, other=0.0).to(tl.float64)
        scale = tl.load(plane_scale + of_plane, mask=kept, other=0.0).to(tl.float64)
        kept = kept & (tl.abs((value.to(tl.float64) - mean) * scale) < _INF)
    else:
        at = image * z_image + position * z_row + channel[None, :] * z_channel
        kept = kept & (tl.abs(tl.load(z + at, mask=kept, other=0.0).to(tl.float32)) < _INF)
    if MASKED:
        kept = kept & (tl.load(valid + row, mask=in_rows, other=0) > 0)[:, None]
    return value, tl.where(kept & (tl.abs(value) < _INF), _key(value * arm), -1)


@triton.jit
def farthest(
    x, z, plane_mean, plane_scale, valid, eps, sigmas, values, places, taken,
    x_image, x_row, x_channel, z_image, z_row, z_channel,
    rows, positions, channels, capacity, most,
    NORM: tl.constexpr, CENTERED: tl.constexpr, MASKED: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Program (block of channels, arm: 0 the largest, 1 the smallest).

    Where more than `capacity` were taken: values, places (C, 2, most) of each channel's farthest,
    place -1 where there are fewer. Of equal values those of the first rows.
    """
    if tl.load(taken) > capacity:
        channel = (tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)).to(tl.int64)
        in_width = channel < channels
        arm = 1.0 - 2.0 * tl.program_id(1)
        reached = tl.zeros((WIDTH,), tl.int64)  # the largest key that `most` elements reach
        step = tl.full((WIDTH,), 2147483648, tl.int64)
        for _ in range(_BITS):
            number = tl.zeros((WIDTH,), tl.int32)
            for start in range(0, rows, ROWS):
                _value, key = _keyed(
                    x, z, plane_mean, plane_scale, valid, eps, sigmas, start, channel, in_width,
                    arm, x_image, x_row, x_channel, z_image, z_row, z_channel, rows, positions,
                    channels, NORM, MASKED, ROWS,
                )  # fmt: skip
                number += tl.sum((key >= (reached + step)[None, :]).to(tl.int32), axis=0)
            reached = tl.where(number >= most, reached + step, reached)
            step = step // 2

        beyond = tl.zeros((WIDTH,), tl.int32)
        for start in range(0, rows, ROWS):
            _value, key = _keyed(
                x, z, plane_mean, plane_scale, valid, eps, sigmas, start, channel, in_width,
                arm, x_image, x_row, x_channel, z_image, z_row, z_channel, rows, positions,
                channels, NORM, MASKED, ROWS,
            )  # fmt: skip
            beyond += tl.sum((key > reached[None, :]).to(tl.int32), axis=0)

        far, equal = tl.zeros((WIDTH,), tl.int32), beyond
        first = (channel * 2 + tl.program_id(1)) * most
        for start in range(0, rows, ROWS):
            value, key = _keyed(
                x, z, plane_mean, plane_scale, valid, eps, sigmas, start, channel, in_width,
                arm, x_image, x_row, x_channel, z_image, z_row, z_channel, rows, positions,
                channels, NORM, MASKED, ROWS,
            )  # fmt: skip
            is_far, is_equal = key > reached[None, :], key == reached[None, :]
            slot = (
                tl.where(
                    is_far,
                    far[None, :] + tl.cumsum(is_far.to(tl.int32), axis=0),
                    equal[None, :] + tl.cumsum(is_equal.to(tl.int32), axis=0),
                )
                - 1
            )
            takes = (is_far | is_equal) & (slot < most)
            place = (start + tl.arange(0, ROWS))[:, None].to(tl.int64) * channels + channel[None, :]
            tl.store(values + first[None, :] + slot, value, mask=takes)
            tl.store(places + first[None, :] + slot, place, mask=takes)
            far += tl.sum(is_far.to(tl.int32), axis=0)
            equal += tl.sum(is_equal.to(tl.int32), axis=0)

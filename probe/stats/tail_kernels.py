"""Collecting and capping the extreme values of a layer, on the CPU (numba)."""

from __future__ import annotations

import math

import numpy as np

from probe.stats.compile_kernels import kernel, part

# Values that are looked at together, without branches, so that it is vectorized; few stretches hold
# one that is outside.
STRETCH = 128


@part
def _outside_of_row(values, low, high):  # type: ignore[no-untyped-def]
    count = 0
    for c in range(values.shape[0]):
        count += (values[c] > high[c]) | (values[c] < low[c])
    return count > 0


@part
def _outside_of_plane(values, low, high):  # type: ignore[no-untyped-def]
    count = 0
    for p in range(values.shape[0]):
        count += (values[p] > high) | (values[p] < low)
    return count > 0


@part
def collect_outside(line, at, along_rows, low, high, outside):  # type: ignore[no-untyped-def]
    """Note the values outside the bounds of a row (all channels of row `at`; `along_rows`) or of a
    plane (all positions of plane `at`, those of one image after the other). Is there one?"""
    values, rows, lines, number = outside
    if number[0] > values.shape[0]:  # there is no room for all, and the line will be read again
        return True
    before, channel = number[0], at % low.shape[0]
    for first in range(0, line.shape[0], STRETCH):
        end = min(first + STRETCH, line.shape[0])
        if along_rows:
            is_outside = _outside_of_row(line[first:end], low[first:end], high[first:end])
        else:
            is_outside = _outside_of_plane(line[first:end], low[channel], high[channel])
        if not is_outside:
            continue
        for k in range(first, end):
            c = k if along_rows else channel
            if (line[k] > high[c] or line[k] < low[c]) and math.isfinite(line[k]):
                if number[0] < values.shape[0]:
                    row, own = (at, k) if along_rows else (k, at)
                    values[number[0]], rows[number[0]], lines[number[0]] = line[k], row, own
                number[0] += 1
    return number[0] > before


@kernel
def packed(outside, starts, position):  # type: ignore[no-untyped-def]
    """What was collected of each image, in one: values, image, position and channel, each (n,);
    nothing of an image that had no room for all. Row r of image b stands at position[starts[b] +
    r]; without starts it is the position."""
    values, rows, channels, number = outside
    images, room = values.shape
    n = 0
    for b in range(images):
        n += number[b] if number[b] <= room else 0
    value, channel = np.empty(n, values.dtype), np.empty(n, channels.dtype)
    image, place = np.empty(n, np.int64), np.empty(n, np.int64)
    i = 0
    for b in range(images):
        for k in range(number[b] if number[b] <= room else 0):
            value[i], channel[i], image[i] = values[b, k], channels[b, k], b
            place[i] = position[starts[b] + rows[b, k]] if len(starts) else rows[b, k]
            i += 1
    return value, image, place, channel


@kernel
def note(elements, values, image, position, channel, images):  # type: ignore[no-untyped-def]
    """Write values and where they stand into ELEMENT records; images (B,) are the indices of the
    images of the batch."""
    for i in range(values.shape[0]):
        element = elements[i]
        element.value, element.channel, element.position = values[i], channel[i], position[i]
        element.batch, element.image = image[i], images[image[i]]
        element.normalized = element.output = np.float32(0.0)


@kernel
def fill_tokens(elements, y, means, sigmas, eps):  # type: ignore[no-untyped-def]
    """z and y of the ELEMENT records that a batch brought, from y (B, P, C) and the mean and sigma
    (B, P) of its tokens."""
    for i in range(elements.shape[0]):
        b, p = elements[i].batch, elements[i].position
        if b >= 0:
            scale = 1.0 / math.sqrt(sigmas[b, p] * sigmas[b, p] + eps)
            elements[i].normalized = (np.float64(elements[i].value) - means[b, p]) * scale
            elements[i].output = y[b, p, elements[i].channel]
            elements[i].batch = -1


@kernel
def fill_planes(elements, y, mean, scale):  # type: ignore[no-untyped-def]
    """z and y of the ELEMENT records that a batch brought, from y (B, P, C) and the mean and scale
    (B, C) of its planes, or (1, C) for all images."""
    for i in range(elements.shape[0]):
        b, c = elements[i].batch, elements[i].channel
        if b >= 0:
            own = min(b, mean.shape[0] - 1)
            value = np.float64(elements[i].value)
            elements[i].normalized = (value - mean[own, c]) * scale[own, c]
            elements[i].output = y[b, elements[i].position, c]
            elements[i].batch = -1


@kernel
def fill_given(elements, y, z):  # type: ignore[no-untyped-def]
    """z and y of the ELEMENT records that a batch brought, from y and z (B, P, C)."""
    for i in range(elements.shape[0]):
        b, p, c = elements[i].batch, elements[i].position, elements[i].channel
        if b >= 0:
            elements[i].normalized, elements[i].output = z[b, p, c], y[b, p, c]
            elements[i].batch = -1


@kernel
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


@kernel
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


@kernel
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

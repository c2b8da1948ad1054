"""Reading sampled rows on the CPU (numba), without holding up the threads that read the batch; and
what is computed of them when they are written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from probe.stats.compile_kernels import kernel, part


@kernel
def rows_of_both(x: Any, y: Any, batch: Any, position: Any) -> Any:
    """The rows (n, C) of x and of y, both (B, P, C), at n (image in the batch, position) pairs."""
    return _rows_of(x, batch, position), _rows_of(y, batch, position)


@part
def _rows_of(values: Any, batch: Any, position: Any) -> Any:
    rows = np.empty((len(batch), values.shape[2]), values.dtype)
    for i in range(rows.shape[0]):
        row = values[batch[i], position[i]]
        for c in range(rows.shape[1]):
            rows[i, c] = row[c]
    return rows


@kernel
def of_tokens(x: Any, tokens: Any) -> Any:
    """z (n, C) float32 of rows x (n, C) with mean, sigma and 1/sqrt(sigma^2 + eps) (n, 3); NaN in a
    token that holds an infinity, which is counted as not finite."""
    z = np.empty(x.shape, np.float32)
    for i in range(x.shape[0]):
        mean, scale = tokens[i, 0], tokens[i, 2]
        for c in range(x.shape[1]):
            z[i, c] = (np.float64(x[i, c]) - mean) * scale
    return z


@kernel
def departure(normalized: Any, output: Any, weight: Any, bias: Any) -> Any:
    """The largest |weight * normalized + bias - output| and the largest |output| over rows (n, C),
    NaN left aside; negative where there is no other."""
    channels = output.shape[1]
    errors, sizes = np.full(channels, -1.0), np.full(channels, -1.0)
    for i in range(output.shape[0]):
        for c in range(channels):
            y = np.float64(output[i, c])
            off = abs(weight[c] * np.float64(normalized[i, c]) + bias[c] - y)
            # `max` would let NaN through
            errors[c] = off if off > errors[c] else errors[c]  # noqa: FURB136
            sizes[c] = abs(y) if abs(y) > sizes[c] else sizes[c]  # noqa: FURB136
    error = largest = -1.0
    for c in range(channels):
        error, largest = max(error, errors[c]), max(largest, sizes[c])
    return error, largest

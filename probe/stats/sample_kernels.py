"""Reading sampled rows on the CPU (numba), without holding up the threads that read the batch."""

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

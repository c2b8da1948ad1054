"""Attention distance from maps and from places written down by hand, for attention whose queries and
keys are on different grids."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def centres(rows: int, columns: int, step: float, first: float = 0.0) -> np.ndarray:
    """(rows * columns, 2) in pixels, row by row."""
    return np.array(
        [(first + i * step, first + j * step) for i in range(rows) for j in range(columns)]
    )


def distance(maps: Tensor, queries: np.ndarray, keys: np.ndarray, before: int = 0) -> np.ndarray:
    """(H,) of probabilities (B, H, L, S): patches follow `before` tokens, and what stands behind
    them is left out."""
    a = maps.detach().double().numpy()
    a = a[:, :, before : before + len(queries), before : before + len(keys)]
    d = np.sqrt(((queries[:, None] - keys[None]) ** 2).sum(-1))
    return ((a * d).sum(-1) / a.sum(-1)).mean((0, 2))

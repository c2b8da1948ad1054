"""Attention inside of windows, or of every n-th token: one arrangement of tokens for all windows of
an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from probe.models.attention.calls import Unreadable
from probe.models.attention.layouts import Index, TokenLayout, step_of
from probe.models.attention.tokens import Pair
from probe.models.attention.tracing.places import is_lattice
from probe.stats.attention import Geometry, grid_distances, mean_stride, patch_distances
from probe.stats.attention_scores import Scores

_LEAK = 1e-4  # of a query's attention: -100 in the mask of Swin leaves 1e-40


def windowed(layout: TokenLayout) -> Geometry:
    """The geometry of windows, each row by row. Raises Unreadable."""
    layout.check_complete("tokens")
    for window, steps in _shapes(layout):
        if (_moves(layout, window, steps)) is not None:
            break
    else:
        raise Unreadable("its windows are not in the order of the patch grid, row by row")
    stride = layout.map.stride
    distances = grid_distances(window, (stride[0] * steps[0], stride[1] * steps[1]))
    outside = None if layout.inside.all() else ~layout.inside
    mean = mean_stride(layout.stride)
    return Geometry(layout.grid, mean, 0, layout.windows, distances, outside)


def _shapes(layout: TokenLayout) -> Iterator[tuple[Pair, Pair]]:
    """(rows, columns) of a window and the cells between its neighbours: that of a full window which
    is a rectangle; where none is full, all that have so many tokens."""
    full = np.flatnonzero(layout.inside.all(axis=1))
    seen = set()
    for window in full:
        axes = [np.unique(index[window]) for index in (layout.rows, layout.columns)]
        if all(is_lattice(axis) for axis in axes):
            shape = (len(axes[0]), len(axes[1]))
            if math.prod(shape) == layout.rows.shape[1]:
                found = shape, (step_of(axes[0]), step_of(axes[1]))
                if found not in seen:
                    seen.add(found)
                    yield found
    if not len(full):
        tokens = layout.rows.shape[1]
        sides = [side for side in range(1, tokens + 1) if tokens % side == 0]
        for side in sorted(sides, key=lambda side: abs(side - tokens / side)):
            yield (side, tokens // side), (1, 1)


def _moves(layout: TokenLayout, window: Pair, steps: Pair) -> Index | None:
    """Where each window begins, (windows, 2); None where its tokens are not row by row. Windows
    that reach over the border go on at the opposite one."""
    local = np.indices(window).reshape(2, -1)
    begins = []
    for axis, index in enumerate((layout.rows, layout.columns)):
        size = layout.map.grid[axis]
        filled = -(-size // (window[axis] * steps[axis])) * window[axis] * steps[axis]
        begin = index - local[axis] * steps[axis]
        for modulus in (size, filled):
            wrapped = np.where(layout.inside, begin % modulus, -1)
            first = wrapped.max(axis=1)
            if ((wrapped == first[:, None]) | ~layout.inside).all():
                begins.append(first)
                break
        else:
            return None
    return np.stack(begins, axis=1)


def check_masked(layout: TokenLayout, geometry: Geometry, scores: Scores) -> None:
    """Windows that join opposite borders of the image (shifted ones) must keep them apart: real
    distances are not those inside of the window. Raises Unreadable."""
    stride = layout.map.stride
    for window in range(layout.windows):
        at = np.stack([layout.map.y[layout.rows[window]], layout.map.x[layout.columns[window]]], 1)
        apart = ~np.isclose(patch_distances(at, at), geometry.distances, atol=min(stride) / 4)
        real = layout.inside[window]
        apart &= real[:, None] & real
        if apart.any() and _mass(scores, window, apart) > _LEAK:
            raise Unreadable(
                "its windows join opposite borders of the image, and no mask keeps them apart"
            )


def _mass(scores: Scores, window: int, apart: NDArray[np.bool_]) -> float:
    """The largest share of a query of the first image on keys that are not `apart` from it."""
    _, heads, length, keys = scores.shape
    part = scores.part(slice(window, window + 1), slice(0, heads), slice(0, length), slice(0, keys))
    return float((part.softmax(-1).nan_to_num().cpu().numpy() * apart).sum(-1).max())

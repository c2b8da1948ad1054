"""Attention inside of windows, or of every n-th token: which partition a running module states, and
where its tokens are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probe.models.attention.layout import Frame, Pair, as_pair
from probe.models.attention.place import Place
from probe.stats.attention import Geometry, grid_distances, mean_stride

_WINDOW = ("window_size", "partition_size", "ws", "window_resolution", "block_size")


def windowed(place: Place, groups: int, length: int) -> Geometry | None:
    """The geometry of `groups` groups of `length` tokens per image; None where no running module
    says what they are.
    """
    for grid in place.stages():
        for frame in reversed(place.frames):
            for window, apart in _partitions(frame.module, grid):
                if math.prod(window) == length and _fits(grid, window, groups, apart):
                    return _geometry(place, grid, window, groups, apart, frame)
    return None


def _partitions(module: Any, grid: Pair) -> Iterator[tuple[Pair, bool]]:
    """(window, apart) that a module states; apart: its tokens are spread evenly over the image
    (grid attention).
    """
    if type(module).__name__.lower().startswith("mobilevit"):
        names = (
            ("patch_size",) if hasattr(module, "patch_size") else ("patch_height", "patch_width")
        )
        patch = as_pair(tuple(getattr(module, name, None) for name in names)) or as_pair(
            getattr(module, names[0], None)
        )
        if patch is not None:
            yield (grid[0] // patch[0], grid[1] // patch[1]), True
    kind = getattr(
        module, "partition_type", None
    )  # torchvision: p x p windows, or g x g tokens, each p apart
    if (
        kind in ("window", "grid")
        and (side := as_pair(getattr(module, "p" if kind == "window" else "g", None))) is not None
    ):
        yield side, kind == "grid"
    for name in _WINDOW:
        if (window := as_pair(getattr(module, name, None))) is not None:
            yield window, getattr(module, "partition_block", True) is False  # timm's MaxViT


def _fits(grid: Pair, window: Pair, groups: int, apart: bool) -> bool:
    if apart:
        return (
            grid[0] % window[0] == 0
            and grid[1] % window[1] == 0
            and math.prod(grid) == math.prod(window) * groups
        )
    return math.prod(_counts(grid, window)) == groups


def _counts(grid: Pair, window: Pair) -> Pair:
    """Windows along each axis; the last may need filling up."""
    return -(-grid[0] // window[0]), -(-grid[1] // window[1])


def _geometry(
    place: Place, grid: Pair, window: Pair, groups: int, apart: bool, frame: Frame
) -> Geometry:
    stride = place.stride(grid)
    step = (grid[0] // window[0], grid[1] // window[1]) if apart else (1, 1)
    distances = grid_distances(window, (stride[0] * step[0], stride[1] * step[1]))
    outside = None if apart else _outside(grid, window, frame.module)
    return Geometry(grid, mean_stride(stride), 0, groups, distances, outside)


def _outside(grid: Pair, window: Pair, module: Any) -> NDArray[np.bool_] | None:
    """(windows, window tokens) True at tokens that only fill up the last windows; None where no
    window needs them.

    Shifted windows are the map rolled by -shift: filled up first (torchvision, transformers), or
    after rolling (timm).
    """
    counts = _counts(grid, window)
    if (counts[0] * window[0], counts[1] * window[1]) == grid:
        return None
    outside = np.ones((counts[0] * window[0], counts[1] * window[1]), bool)
    outside[: grid[0], : grid[1]] = False
    shift = getattr(module, "shift_size", 0)
    shifts = (shift, shift) if isinstance(shift, int) else tuple(shift)
    if not type(module).__module__.startswith("timm."):
        rolled = [
            0 if part >= side else by
            for part, side, by in zip(window, outside.shape, shifts, strict=True)
        ]
        outside = np.roll(outside, (-rolled[0], -rolled[1]), axis=(0, 1))
    tiles = outside.reshape(counts[0], window[0], counts[1], window[1]).swapaxes(1, 2)
    return tiles.reshape(counts[0] * counts[1], window[0] * window[1])

"""Places in the image, and why a token has none: every cell of every map of a pass has a number.

A map is a regular arrangement of cells over the image: its pixels, the output of a patch embedding,
of a strided convolution, of a pooling. The number of a cell (image, row, column) of a map is
offset + (image * rows + row) * columns + column; numbers below zero are an Origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pair = tuple[int, int]  # height and width


class Origin(IntEnum):
    """Why a token is at no place of the image."""

    FREE = -1  # made from parameters: class token, register, object query, latent
    PADDING = -2
    TEXT = -3  # from here on: lost, the weightier the lower
    POOLED = -4
    MIXED = -5
    VIDEO = -6
    PICKED = -7

    @property
    def reason(self) -> str:
        """For a sentence about "its tokens"."""
        return _REASONS[self]


_REASONS = {
    Origin.FREE: "they are learned tokens (class, object or latent queries), not patches",
    Origin.TEXT: "they come from whole numbers (text), not from an image",
    Origin.VIDEO: "they come from a video (an input of five axes): patches of several frames have "
    "no distance in pixels",
    Origin.PICKED: "they were picked, shuffled, merged or dropped by index, so that their places "
    "change from image to image",
    Origin.PADDING: "they only fill up a window",
    Origin.POOLED: "they are averages over tokens that make no rectangle of the image",
    Origin.MIXED: "several places of the image are mixed in each",
}
_UNFOLLOWED = -100  # and below: an operation that cannot be followed


@dataclass(frozen=True, eq=False)
class TokenMap:
    """`images` x rows x columns cells from number `offset` on; `y` and `x` are their centres in
    pixels, `stride` the pixels between neighbours."""

    offset: int
    images: int
    y: NDArray[np.floating[Any]]
    x: NDArray[np.floating[Any]]
    stride: tuple[float, float]

    @property
    def grid(self) -> Pair:
        return len(self.y), len(self.x)


class Cells(NamedTuple):
    """What numbers stand for; all arrays have the shape of the numbers, -1 where there is no
    place."""

    map: NDArray[np.int64]
    image: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]


class Places:
    """All maps of one forward pass."""

    def __init__(self) -> None:
        self.maps: list[TokenMap] = []
        self._offsets: list[int] = []
        self._end = 0
        self._operations: list[str] = []

    def add(
        self,
        images: int,
        y: NDArray[np.floating[Any]],
        x: NDArray[np.floating[Any]],
        stride: tuple[float, float],
    ) -> Tensor:
        """The numbers (images, rows, columns) of a new map with these centres."""
        offset, size = self._end, images * len(y) * len(x)
        self.maps.append(TokenMap(offset, images, y, x, stride))
        self._offsets.append(offset)
        self._end += size
        return torch.arange(offset, offset + size, dtype=torch.int32).view(images, len(y), len(x))

    def pixels(self, images: int, height: int, width: int) -> Tensor:
        """The numbers (images, height, width) of the pixels of a batch of images."""
        y, x = (np.arange(size, dtype=np.float64) + 0.5 for size in (height, width))
        return self.add(images, y, x, (1.0, 1.0))

    def cells(self, numbers: Tensor) -> Cells:
        """Map, image, row and column of each number."""
        flat = numbers.numpy().astype(np.int64)
        inside = flat >= 0
        index = np.searchsorted(self._offsets, flat, side="right") - 1
        maps = np.where(inside, index, -1)
        rows, columns, offset = (
            np.array([*values, 1])[index]
            for values in (
                [m.grid[0] for m in self.maps],
                [m.grid[1] for m in self.maps],
                self._offsets,
            )
        )
        rest = flat - offset
        cells = (rest // (rows * columns), rest // columns % rows, rest % columns)
        return Cells(maps, *(np.where(inside, value, -1) for value in cells))

    def unfollowed(self, operation: str) -> int:
        """The number that says that `operation` cannot be followed."""
        if operation not in self._operations:
            self._operations.append(operation)
        return _UNFOLLOWED - self._operations.index(operation)

    def reason(self, number: int) -> str:
        """Why a token of a negative number is at no place."""
        if number <= _UNFOLLOWED:
            operation = self._operations[_UNFOLLOWED - number]
            return f"their way from the image could not be followed through {operation}"
        return Origin(number).reason


def is_lattice(indices: Sequence[int] | NDArray[np.int64]) -> bool:
    """Do the indices rise in equal steps?"""
    steps = np.diff(np.asarray(indices))
    return bool((steps > 0).all() and (steps == steps[:1]).all())

"""The order of the tokens of a call, from the places that they were followed to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probe.models.attention.calls import Unreadable
from probe.models.attention.tokens import Pair
from probe.models.attention.tracing import Origin, Places, TokenMap
from probe.models.attention.tracing.places import is_lattice

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenLayout:
    """Rows and columns (windows, tokens) on `map` of the patches of an image, -1 where a token only
    fills a window up; `prefix` tokens stand before them, `suffix` behind."""

    map: TokenMap
    prefix: int
    suffix: int
    rows: Index
    columns: Index

    @property
    def windows(self) -> int:
        return len(self.rows)

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(windows, tokens) False at tokens that fill up."""
        return self.rows >= 0

    @cached_property
    def lattice(self) -> tuple[Index, Index]:
        """Rows and columns of the map that have tokens."""
        return np.unique(self.rows[self.inside]), np.unique(self.columns[self.inside])

    @property
    def grid(self) -> Pair:
        return len(self.lattice[0]), len(self.lattice[1])

    @property
    def steps(self) -> Pair:
        """Cells of the map between neighbours."""
        return tuple(step_of(index) for index in self.lattice)  # type: ignore[return-value]

    @property
    def stride(self) -> tuple[float, float]:
        """Pixels between neighbours."""
        return self.map.stride[0] * self.steps[0], self.map.stride[1] * self.steps[1]

    def centres(self) -> NDArray[np.float64]:
        """(tokens, 2) of a layout without windows, in pixels."""
        return np.stack([self.map.y[self.rows[0]], self.map.x[self.columns[0]]], axis=1)

    @property
    def regular(self) -> bool:
        """Are neighbours everywhere equally far apart?"""
        return all(
            np.allclose(np.diff(centres[index]), stride)
            for centres, index, stride in zip(
                (self.map.y, self.map.x), self.lattice, self.stride, strict=True
            )
        )

    def check_complete(self, what: str) -> None:
        """Every patch of the map, or of a regular choice of its rows and columns, is there once.
        Raises Unreadable."""
        rows, columns = (index[self.inside] for index in (self.rows, self.columns))
        cells = np.unique(np.stack([rows, columns]), axis=1).shape[1]
        whole = all(
            is_lattice(index) and index[0] < step and index[-1] + step >= size
            for index, step, size in zip(self.lattice, self.steps, self.map.grid, strict=True)
        )
        if not whole or cells != math.prod(self.grid):
            raise Unreadable(
                f"its {cells} {what} are not all patches of the grid "
                f"{self.map.grid[0]}x{self.map.grid[1]} that they come from: some were dropped"
            )
        if cells != len(rows):
            raise Unreadable(f"some patches are there several times among its {what}")

    def check_order(self, what: str) -> None:
        """Without windows: row by row. Raises Unreadable."""
        expected = np.meshgrid(*self.lattice, indexing="ij")
        order = zip(expected, (self.rows, self.columns), strict=True)
        if any((index.ravel() != mine[0]).any() for index, mine in order):
            raise Unreadable(f"its {what} are not in the order of the patch grid, row by row")


def step_of(index: Index) -> int:
    return int(index[1] - index[0]) if len(index) > 1 else 1


def read_layout(places: Places, numbers: Tensor, images: int, what: str) -> TokenLayout:
    """From the numbers (R, tokens) of R = images * windows rows. Raises Unreadable with what stands
    in the way."""
    if len(numbers) % images:
        raise Unreadable(f"a batch of {len(numbers)} is no multiple of the {images} images")
    by_image = numbers.reshape(images, -1, numbers.shape[-1])
    _refuse_lost(places, numbers, what)
    prefix, suffix = _around(by_image, what)
    by_image = by_image[..., prefix : by_image.shape[-1] - suffix]
    cells = places.cells(by_image)
    if len(maps := np.unique(cells.map[cells.map >= 0])) != 1:
        raise Unreadable(f"its {what} come from {len(maps)} different grids of patches")
    its_image = cells.image == np.arange(images)[:, None, None]
    if not (its_image | (cells.map < 0)).all():
        raise Unreadable(f"its {what} are not those of one image after the other")
    if any((index != index[:1]).any() for index in (cells.row, cells.column)):
        raise Unreadable(f"its {what} are at other places from image to image")
    return TokenLayout(places.maps[int(maps[0])], prefix, suffix, cells.row[0], cells.column[0])


def _refuse_lost(places: Places, numbers: Tensor, what: str) -> None:
    lost = numbers[(numbers < 0) & (numbers != Origin.FREE) & (numbers != Origin.PADDING)]
    if len(lost):
        raise Unreadable(f"its {what} have no known place: {places.reason(int(lost.min()))}")
    if not bool((numbers >= 0).any()):
        raise Unreadable(f"its {what} are not patches: {places.reason(int(numbers.max()))}")


def _around(by_image: Tensor, what: str) -> tuple[int, int]:
    """Tokens without a place before and behind the patches."""
    free = (by_image == Origin.FREE).any(0).any(0)
    if bool(free.all()):
        raise Unreadable(f"its {what} are not patches in every image")
    patches = torch.nonzero(~free)[[0, -1], 0].tolist()
    prefix, suffix = patches[0], len(free) - 1 - patches[1]
    if bool(free[prefix : len(free) - suffix].any()):
        raise Unreadable(f"its {what} have learned tokens between the patches")
    if by_image.shape[1] > 1 and (prefix or suffix):
        raise Unreadable("its windows hold tokens that are at no place of the image")
    if by_image.shape[1] == 1 and bool((by_image == Origin.PADDING).any()):
        raise Unreadable(f"its {what} hold padding")
    return prefix, suffix

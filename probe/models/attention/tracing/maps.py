"""Convolutions, poolings and resizing: maps of cells (B, C, H, W) become maps of other cells.

Cell i of the result is centred on the middle of what it sees: stride * i - padding + dilation *
(kernel - 1) / 2, counted in cells of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probe.models.attention.tracing.places import Origin, Places, is_lattice
from probe.models.attention.tracing.products import block_means
from probe.models.attention.tracing.track import (
    compact,
    constant_along,
    everywhere,
    first_along,
)

Axis = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Window:
    """What one output cell sees along each spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def keeps(self) -> bool:
        """Stride 1 and centred: every cell stays where it is."""
        return all(
            s == 1 and 2 * p == d * (k - 1)
            for k, s, p, d in zip(
                self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )

    def middles(self, axis: int, count: int) -> Axis:
        """Centres of `count` output cells, in cells of the input."""
        k, s, p, d = (
            values[axis] for values in (self.kernel, self.stride, self.padding, self.dilation)
        )
        return s * np.arange(count) - p + d * (k - 1) / 2


def slid(places: Places, numbers: Tensor, window: Window, shape: torch.Size) -> Tensor:
    """Numbers of the output (B, C', ...) of a sliding window over (B, C, ...)."""
    if not constant_along(numbers, 1):
        if not (window.keeps and set(window.kernel) == {1}):
            return everywhere(Origin.MIXED, shape)
        return block_means(places, numbers, 1).expand(shape)
    if window.keeps and numbers.shape[2:] == shape[2:]:
        return first_along(numbers, 1).expand(shape)
    middles = [window.middles(axis, size) for axis, size in enumerate(shape[2:])]
    return resampled(places, numbers, middles, window.stride, shape)


def resampled(
    places: Places,
    numbers: Tensor,
    middles: Sequence[Axis],
    steps: tuple[float, ...],
    shape: torch.Size,
) -> Tensor:
    """A new map whose cells are centred at `middles`, in cells of the input (B, C, H, W)."""
    if len(middles) != 2 or not constant_along(numbers, 1):
        return _without_place(numbers, shape)
    found = _centres(places, compact(numbers)[:, 0].expand(-1, *numbers.shape[2:]))
    if found is None:
        return _without_place(numbers, shape)
    y, x, stride, images = found
    new = places.add(
        int(images.max()) + 1,
        y[0] + stride[0] * middles[0],
        x[0] + stride[1] * middles[1],
        (stride[0] * steps[0], stride[1] * steps[1]),
    )
    return new[images][:, None].expand(shape)


def spread(places: Places, numbers: Tensor, window: Window, shape: torch.Size) -> Tensor:
    """Numbers of the output of a transposed convolution: the other way round."""
    middles, steps = [], []
    for axis, size in enumerate(shape[2:]):
        step = window.stride[axis]
        first = window.padding[axis] - window.dilation[axis] * (window.kernel[axis] - 1) / 2
        middles.append((np.arange(size) + first) / step)
        steps.append(1 / step)
    return resampled(places, numbers, middles, tuple(steps), shape)


def _without_place(numbers: Tensor, shape: torch.Size) -> Tensor:
    """The reason of the input, or that it was no map of the image."""
    worst = int(compact(numbers).min())
    return everywhere(worst if worst < Origin.PADDING else int(Origin.POOLED), shape)


def _centres(
    places: Places, numbers: Tensor
) -> tuple[Axis, Axis, tuple[float, float], NDArray[np.int64]] | None:
    """Centres of rows and columns, the pixels between them, and the image of each of (B, H, W)
    numbers that are a regular map; padding around it goes on in equal steps."""
    inside = (numbers >= 0).numpy()
    if not inside.any() or bool((numbers[~torch.from_numpy(inside)] != Origin.PADDING).any()):
        return None
    cells = places.cells(numbers)
    if len(np.unique(cells.map[inside])) != 1:
        return None
    rows, columns = (np.flatnonzero(inside.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    box = np.ix_(np.arange(len(numbers)), rows, columns)
    row, column, image = cells.row[box], cells.column[box], cells.image[box]
    row_of, column_of = row[0, :, 0], column[0, 0, :]
    regular = (
        inside[box].all()
        and (row == row_of[None, :, None]).all()
        and (column == column_of[None, None, :]).all()
        and (image == image[:, :1, :1]).all()
        and is_lattice(row_of)
        and is_lattice(column_of)
        and is_lattice(rows)
        and is_lattice(columns)
    )
    if not regular:
        return None
    source = places.maps[int(cells.map[inside][0])]
    y, dy = _continued(source.y[row_of], rows, source.stride[0], numbers.shape[1])
    x, dx = _continued(source.x[column_of], columns, source.stride[1], numbers.shape[2])
    return y, x, (dy, dx), image[:, 0, 0]


def _continued(
    centres: Axis, at: NDArray[np.int64], stride: float, size: int
) -> tuple[Axis, float]:
    step = (centres[-1] - centres[0]) / (len(centres) - 1) if len(centres) > 1 else stride
    return centres[0] + step * (np.arange(size) - at[0]), float(step)


def adaptive(places: Places, numbers: Tensor, shape: torch.Size) -> Tensor:
    """Adaptive pooling: bin i reaches from floor(i H / h) to ceil((i + 1) H / h)."""
    if shape[2:] == numbers.shape[2:]:
        return first_along(numbers, 1).expand(shape)
    if all(size == 1 for size in shape[2:]):
        return everywhere(Origin.MIXED, shape)
    middles, steps = [], []
    for size, bins in zip(numbers.shape[2:], shape[2:], strict=True):
        index = np.arange(bins)
        start, end = index * size // bins, -(-(index + 1) * size // bins)
        middles.append((start + end - 1) / 2)
        steps.append(size / bins)
    return resampled(places, numbers, middles, tuple(steps), shape)


def resized(places: Places, numbers: Tensor, shape: torch.Size, corners: bool = False) -> Tensor:
    """Interpolation to another size."""
    if shape[2:] == numbers.shape[2:]:
        return first_along(numbers, 1).expand(shape)
    middles, steps = [], []
    for size, new in zip(numbers.shape[2:], shape[2:], strict=True):
        step = (size - 1) / max(new - 1, 1) if corners else size / new
        middles.append(np.arange(new) * step + (0 if corners else (step - 1) / 2))
        steps.append(step)
    return resampled(places, numbers, middles, tuple(steps), shape)

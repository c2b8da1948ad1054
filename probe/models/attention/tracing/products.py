"""Products of matrices (queries with keys, weights with values, tokens with parameters), and sums
over an axis.

An axis that is summed over either holds channels, along which the place is the same, or places.
What is the same along it stays: q (L, D) k^T (D, S) keeps the places of the queries along L and of
the keys along S; softmax (L, S) v (S, D) keeps those of the queries.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from probe.models.attention.tracing.places import Origin, Places
from probe.models.attention.tracing.track import (
    Track,
    compact,
    constant_along,
    everywhere,
    first_along,
    settled,
)


def product(
    places: Places, left: Track | None, right: Track | None, shape: torch.Size
) -> Track | None:
    """(..., L, K) with (..., K, S) is (..., L, S)."""
    lowest = _without_places(left, right)
    if lowest is not None:
        return Track((everywhere(lowest, shape),))
    parts = _settled(left, -1) + _settled(right, -2)
    # what was lost (scores between channels times tokens) says nothing beside what has a place
    kept = [p.expand(shape) for p in parts if bool((compact(p) >= Origin.PADDING).any())]
    if len(kept) in (1, 2):
        return Track(tuple(kept))
    if kept:
        return Track((everywhere(Origin.MIXED, shape),))
    if left is not None and right is None and len(left.numbers) == 1:
        return Track((block_means(places, left.numbers[0], -1).expand(shape),))
    if right is not None and left is None and len(right.numbers) == 1:
        return Track((block_means(places, right.numbers[0], -2).expand(shape),))
    return Track((everywhere(Origin.MIXED, shape),))


def _without_places(*tracks: Track | None) -> int | None:
    """The weightiest reason where nothing has a place."""
    small = [compact(n) for track in tracks if track is not None for n in track.numbers]
    if any(bool((numbers >= 0).any()) for numbers in small):
        return None
    return min(int(numbers.min()) for numbers in small if numbers.numel())


def _settled(track: Track | None, axis: int) -> list[Tensor]:
    if track is None:
        return []
    parts = (settled(numbers, axis, Origin.FREE) for numbers in track.numbers)
    return [part for part in parts if part is not None]


def block_means(places: Places, numbers: Tensor, axis: int) -> Tensor:
    """Places of sums along an axis, which stays with size one: the centres of the rectangles of
    cells that are summed up, as those of patches of pixels, where they tile a map.

    Otherwise Origin.POOLED; for one rectangle, the whole image, Origin.MIXED.
    """
    moved = compact(numbers, [axis]).movedim(axis, -1)
    flat = moved.reshape(-1, moved.shape[-1])
    found = _blocks(places, flat)
    result = (
        torch.where(flat.amin(1) < 0, flat.amin(1), int(Origin.POOLED)) if found is None else found
    )
    shape = list(numbers.shape)
    shape[axis] = 1
    return result.view(*moved.shape[:-1], 1).movedim(-1, axis).expand(shape)


def _blocks(places: Places, rows: Tensor) -> Tensor | None:
    """Numbers (n,) on a new map of rectangles for (n, k) numbers; None where they are none."""
    if bool((rows < 0).any()) or not len(rows):
        return None
    cells = places.cells(rows)
    if (cells.map != cells.map[0, 0]).any() or (cells.image != cells.image[:, :1]).any():
        return None
    source = places.maps[int(cells.map[0, 0])]
    low = [index.min(1) for index in (cells.row, cells.column)]
    side = [index.max(1) - index.min(1) + 1 for index in (cells.row, cells.column)]
    different = (np.diff(np.sort(rows.numpy(), axis=1), axis=1) > 0).sum(1) + 1
    if any((s != s[0]).any() for s in side) or (different != side[0] * side[1]).any():
        return None
    starts = [np.unique(index) for index in low]
    if any((np.diff(start) != length[0]).any() for start, length in zip(starts, side, strict=True)):
        return None
    if len(starts[0]) * len(starts[1]) == 1:
        return torch.full((len(rows),), int(Origin.MIXED), dtype=torch.int32)
    y, x = (
        np.array([centres[a : a + length[0]].mean() for a in start])
        for centres, start, length in zip((source.y, source.x), starts, side, strict=True)
    )
    stride = (source.stride[0] * int(side[0][0]), source.stride[1] * int(side[1][0]))
    new = places.add(source.images, y, x, stride)
    place = [np.searchsorted(start, index) for start, index in zip(starts, low, strict=True)]
    return new[cells.image[:, 0], place[0], place[1]]


def reduced(places: Places, track: Track, axes: list[int], shape: torch.Size) -> Track:
    """Means, sums, extremes over axes."""
    dims = sorted({axis % len(track.shape) for axis in axes} or set(range(len(track.shape))))
    places_along = [
        axis for axis in dims if not all(constant_along(numbers, axis) for numbers in track.numbers)
    ]

    def change(numbers: Tensor) -> Tensor:
        for axis in dims:
            if axis not in places_along:
                numbers = first_along(numbers, axis)
        if places_along:
            first = places_along[0]
            moved = numbers.movedim(places_along, list(range(-len(places_along), 0)))
            moved = moved.flatten(-len(places_along))
            numbers = block_means(places, moved, -1)
            for _ in places_along[1:]:
                numbers = numbers.unsqueeze(-1)
            numbers = numbers.movedim(list(range(-len(places_along), 0)), places_along)
            assert numbers.shape[first] == 1
        return numbers.reshape(shape)

    if len(track.numbers) > 1 and places_along:
        return Track((everywhere(Origin.MIXED, shape),))
    return track.map(change)

"""Element-wise operations between tensors: whose place does the result have?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from probe.models.attention.tracing.places import Origin, Places
from probe.models.attention.tracing.track import Track, compact, same_numbers


def combined(places: Places, tracks: list[Track], shape: torch.Size) -> Track:
    """The track of an element-wise result of `shape`: a place counts more than none; two different
    ones are mixed.

    A tensor that is broadcast over places (a gate, a mean) changes values there and moves nothing.
    """
    several = max(len(track.numbers) for track in tracks)
    tracks = [track for track in tracks if len(track.numbers) == several]
    whole = [track for track in tracks if track.shape == shape and _has_places(track)]
    result = None
    for track in whole or tracks:
        numbers = tuple(part.expand(shape) for part in track.numbers)
        result = (
            numbers
            if result is None
            else tuple(
                _either(places, one, other) for one, other in zip(result, numbers, strict=True)
            )
        )
    assert result is not None
    return Track(result)


def _has_places(track: Track) -> bool:
    return any(bool((compact(numbers) >= 0).any()) for numbers in track.numbers)


def _either(places: Places, one: Tensor, other: Tensor) -> Tensor:
    if same_numbers(one, other):
        return one
    kept = [axis for axis in range(one.ndim) if one.stride(axis) != 0 or other.stride(axis) != 0]
    shape = one.shape
    one, other = compact(one, kept), compact(other, kept)
    # of two without a place the weightier reason counts, which is the lower number
    result = torch.where(
        (one < 0) & (other < 0), torch.minimum(one, other), torch.maximum(one, other)
    )
    differ = (one >= 0) & (other >= 0) & (one != other)
    if bool(differ.any()):
        result[differ] = _of_two_places(places, one[differ], other[differ])
    return result.expand(shape)


def _of_two_places(places: Places, one: Tensor, other: Tensor) -> Tensor:
    """Equal cells of maps of one grid are one place: a convolution and a pooling side by side may
    be centred half a pixel apart. What is added from a coarser map (an upsampled one, a summary of
    the image) moves nothing. Else the places are mixed."""
    mine, its = places.cells(one), places.cells(other)
    grids = np.array([m.grid for m in places.maps])
    same = (grids[mine.map] == grids[its.map]).all(-1)
    for mine_index, its_index in zip(mine[1:], its[1:], strict=True):
        same &= mine_index == its_index
    cells = grids.prod(1)
    finer, coarser = (cells[mine.map] > cells[its.map]), (cells[mine.map] < cells[its.map])
    kept = torch.where(torch.from_numpy(coarser), other, one)
    return torch.where(torch.from_numpy(same | finer | coarser), kept, int(Origin.MIXED))

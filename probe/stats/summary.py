"""Reduce what a layer saw in one batch: on the CPU by the numba kernels, on CUDA by Triton
(`triton_summary`), elsewhere by torch (`torch_summary`).

The images of one jackknife group are the unit of work: a group has cells of its own and its images
follow in order, so the numbers do not depend on the number of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from probe.stats import kernels, tail_kernels, torch_summary, triton_summary
from probe.stats.batch_summary import BatchSummary, Extremes
from probe.stats.crew import crew
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm
from probe.stats.profile import Profile
from probe.stats.sums import ChannelSum

# Extreme values collected between two tightenings of the bounds; one row (plane) must fit at least.
CANDIDATES = 1 << 15
ROOM = 512  # values outside of the bounds that a kernel collects of an image on its way

Task = Callable[[int, NDArray[np.float64]], int]  # (image, cells of its group) -> not finite


def summarize(observed: Observed, profile: Profile, extremes: Extremes) -> BatchSummary:
    """Adds a batch to the profile, hands its extreme values to `extremes` and returns the rest."""
    if observed.x.device.type != "cpu":
        backend = triton_summary if triton_summary.runs_on(observed.x.device) else torch_summary
        return backend.summarize(observed, profile, extremes)
    if isinstance(observed.norm, PlaneNorm):
        if observed.by_plane:
            return _summarize_planes(observed, observed.norm, profile, extremes)
        profile = Profile() if observed.norm.fixed else profile  # lines have none
        observed = observed.as_given_rows()
    assert not isinstance(observed.norm, PlaneNorm)
    return _summarize_rows(observed, observed.norm, profile, extremes)


def _room_for_sums(observed: Observed) -> NDArray[np.float64]:
    """(B, ChannelSum, C), filled by the kernels."""
    return np.empty((len(observed.images), len(ChannelSum), observed.channels))


def _float32(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy()


def _summarize_planes(
    observed: Observed, norm: PlaneNorm, profile: Profile, extremes: Extremes
) -> BatchSummary:
    x = _float32(observed.x)
    images, channels, _ = x.shape
    bits, binned = x.view(np.int32), not norm.fixed
    mean, scale = (_float32(t.expand(images, channels)) for t in (norm.mean, norm.scale))
    sums, flagged = _room_for_sums(observed), np.zeros((images, channels), np.uint8)
    bounds = extremes.bounds

    outside = _Outside(images)

    def task(b: int, cells: NDArray[np.float64]) -> int:
        into = (cells[0], sums[b], flagged[b], outside.of(b))
        return int(kernels.planes(x[b], bits[b], mean[b], scale[b], binned, *bounds, *into))

    not_finite = _run(task, observed, profile)
    if (too_many := outside.too_many).any():
        _collect_from_planes(x, flagged & too_many[:, None], sums, extremes)
    if outside.any:
        extremes.collect(*outside.collected())
    return BatchSummary(sums, not_finite, None, None)


class _Outside:
    """The values outside of the bounds that the kernels met, by image."""

    def __init__(self, images: int) -> None:
        self._values = np.empty((images, ROOM), np.float32)
        self._rows, self._channels = np.empty((2, images, ROOM), np.int64)
        self._number = np.zeros((images, 1), np.int64)

    def of(self, b: int) -> tuple[NDArray, ...]:
        """What a kernel takes for the image b of the batch."""
        return self._values[b], self._rows[b], self._channels[b], self._number[b]

    @property
    def any(self) -> bool:
        """Is there something in `collected`?"""
        return bool((self._number[~self.too_many] > 0).any())

    @property
    def too_many(self) -> NDArray[np.bool_]:
        """(B,) the images with more than there was room for; they are scanned again."""
        return self._number[:, 0] > ROOM

    def collected(self) -> tuple[NDArray, ...]:
        """Values, image in the batch, row (position) and channel of the others, each (n,)."""
        here = np.arange(ROOM) < np.where(self.too_many[:, None], 0, self._number)
        image = np.nonzero(here)[0]
        return self._values[here], image, self._rows[here], self._channels[here]


def _collect_from_planes(
    x: NDArray[np.float32],
    flagged: NDArray[np.uint8],
    sums: NDArray[np.float64],
    extremes: Extremes,
) -> None:
    """Image by image, those planes alone that reach beyond what `start` made of the bounds."""
    extremes.start(sums)
    low, high = extremes.bounds
    flagged = flagged & ((sums[:, ChannelSum.X_MAX] > high) | (sums[:, ChannelSum.X_MIN] < low))
    for b in np.flatnonzero(flagged.any(axis=1)).tolist():

        def collect(values: NDArray, positions: NDArray, channels: NDArray, b: int = b) -> None:
            extremes.collect(values, np.full(len(values), b), positions, channels)

        capacity = max(CANDIDATES, x.shape[2])
        _scan(x[b], False, flagged[b], extremes, collect, capacity)


@dataclass(frozen=True)
class _Places:
    """Where the valid rows of a batch stand, one image after the other."""

    index: NDArray[np.int64]  # (R,) image * positions + position
    position: NDArray[np.int64]  # (R,)
    kinds: NDArray[np.uint8]  # (R,)
    of_image: list[slice]

    @classmethod
    def of(cls, valid: NDArray[np.bool_], kinds: NDArray[np.uint8]) -> _Places:
        """valid: (B, P)."""
        image, position = np.nonzero(valid)
        ends = np.searchsorted(image, np.arange(len(valid) + 1)).tolist()
        of_image = [slice(*ends[b : b + 2]) for b in range(len(valid))]
        return cls(image * len(kinds) + position, position, kinds[position], of_image)


@functools.lru_cache(maxsize=16)
def _all_places(images: int, kinds: bytes) -> _Places:
    """Of a batch without padding: the same for every layer of equal grid."""
    return _Places.of(np.ones((images, len(kinds)), bool), np.frombuffer(kinds, np.uint8))


@dataclass(frozen=True)
class _Rows:
    """The valid rows of a batch."""

    x: NDArray[np.float32]  # (R, C)
    places: _Places

    @classmethod
    def of(cls, observed: Observed) -> _Rows:
        if observed.valid is None:
            places = _all_places(len(observed.images), observed.kinds.tobytes())
        else:
            places = _Places.of(observed.valid, observed.kinds)
        return cls(_valid_rows(observed.x, observed, places), places)


def _valid_rows(tensor: torch.Tensor, observed: Observed, places: _Places) -> NDArray[np.float32]:
    """(R, C) of a (B, P, C) tensor; no copy where all rows are valid."""
    rows = _float32(tensor).reshape(-1, observed.channels)
    return rows if observed.valid is None else rows[places.index]


def _summarize_rows(
    observed: Observed, norm: TokenNorm | GivenNorm, profile: Profile, extremes: Extremes
) -> BatchSummary:
    rows = _Rows.of(observed)
    images, places = len(observed.images), rows.places
    sums, flagged = _room_for_sums(observed), np.zeros(len(rows.x), np.uint8)
    outside = _Outside(images)
    moments = np.empty((2, len(rows.x)))  # mean and sigma of each row
    if isinstance(norm, GivenNorm):
        z = _valid_rows(norm.z, observed, places)
        task = _given_task(rows, z, extremes, sums, flagged, outside)
    else:
        task = _token_task(rows, norm, extremes, sums, moments, flagged, outside)
    not_finite = _run(task, observed, profile)
    if (too_many := outside.too_many).any():
        extremes.start(sums)
        of_row = np.repeat(too_many, [part.stop - part.start for part in places.of_image])
        _collect_from_rows(rows, flagged & of_row, observed.positions, extremes)
    if outside.any:
        values, image, row, channels = outside.collected()
        starts = np.array([part.start for part in places.of_image])
        extremes.collect(values, image, places.position[starts[image] + row], channels)
    if isinstance(norm, GivenNorm):
        return BatchSummary(sums, not_finite, None, None)
    return BatchSummary(sums, not_finite, *_by_position(moments, observed, places))


def _by_position(
    moments: NDArray[np.float64], observed: Observed, places: _Places
) -> NDArray[np.float64]:
    """(2, B, P) of the moments (2, R) of the valid rows, NaN at padding."""
    shape = (2, len(observed.images), observed.positions)
    if observed.valid is None:
        return moments.reshape(shape)
    every = np.full((2, shape[1] * shape[2]), np.nan)
    every[:, places.index] = moments
    return every.reshape(shape)


def _token_task(
    rows: _Rows,
    norm: TokenNorm,
    extremes: Extremes,
    sums: NDArray[np.float64],
    moments: NDArray[np.float64],
    flagged: NDArray[np.uint8],
    outside: _Outside,
) -> Task:
    bits, bounds, (means, sigmas) = rows.x.view(np.int32), extremes.bounds, moments

    def task(b: int, cells: NDArray[np.float64]) -> int:
        part = rows.places.of_image[b]
        what = (rows.x[part], bits[part], norm.eps, norm.centered, rows.places.kinds[part])
        into = (cells, sums[b], means[part], sigmas[part], flagged[part], outside.of(b))
        return int(kernels.token_rows(*what, *bounds, *into))

    return task


def _given_task(
    rows: _Rows,
    z: NDArray[np.float32],
    extremes: Extremes,
    sums: NDArray[np.float64],
    flagged: NDArray[np.uint8],
    outside: _Outside,
) -> Task:
    bits, bounds = rows.x.view(np.int32), extremes.bounds

    def task(b: int, cells: NDArray[np.float64]) -> int:
        part = rows.places.of_image[b]
        what = (rows.x[part], bits[part], z[part], rows.places.kinds[part])
        into = (cells, sums[b], flagged[part], outside.of(b))
        return int(kernels.given_rows(*what, *bounds, *into))

    return task


def _collect_from_rows(
    rows: _Rows, flagged: NDArray[np.uint8], positions: int, extremes: Extremes
) -> None:
    def collect(values: NDArray, row: NDArray, channels: NDArray) -> None:
        image, position = np.divmod(rows.places.index[row], positions)
        extremes.collect(values, image, position, channels)

    capacity = max(CANDIDATES, rows.x.shape[1])
    _scan(rows.x, True, flagged, extremes, collect, capacity)


def _run(task: Task, observed: Observed, profile: Profile) -> int:
    """task(image, cells of its group) for every image; the sum of what they return.

    This thread and its helpers take the next group in turn: while it waits, torch's own threads
    would still spin.
    """
    groups = _images_of(observed.groups.tobytes())
    profile.grow(1 + int(observed.kinds.any()))
    todo, cells = iter(groups), profile.cells

    def work() -> int:
        return sum(task(b, cells[:, group]) for group, images in todo for b in images)

    helpers = min(torch.get_num_threads(), len(groups)) - 1
    return sum(crew(helpers).together(work))


@functools.lru_cache(maxsize=64)
def _images_of(groups: bytes) -> list[tuple[int, list[int]]]:
    """The images of a batch by their jackknife group."""
    of_image = np.frombuffer(groups, np.int64)
    return [
        (group, np.flatnonzero(of_image == group).tolist())
        for group in sorted({*of_image.tolist()})
    ]


def _scan(
    x: NDArray,
    along_rows: bool,
    flagged: NDArray,
    extremes: Extremes,
    collect: Callable[..., None],
    capacity: int,
) -> None:
    """Hand the values outside the bounds to `collect`, a buffer at a time; the tighter bounds hold
    for the rest.
    """
    values = np.empty(capacity, np.float32)
    rows, channels = np.empty((2, capacity), np.int64)
    number, start = np.zeros(1, np.int64), 0
    outside = values, rows, channels, number
    while start < len(x):
        start = tail_kernels.scan(x, along_rows, flagged, *extremes.bounds, start, outside)
        if count := int(number[0]):
            collect(values[:count], rows[:count], channels[:count])

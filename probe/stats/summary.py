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
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm, float32
from probe.stats.profile import Profile
from probe.stats.sums import ChannelSum
from probe.stats.turns import are_finished

# Extreme values collected between two tightenings of the bounds; one row (plane) must fit at least.
CANDIDATES = 1 << 15
ROOM = 512  # values outside of the bounds that a kernel collects of an image on its way

_NOWHERE = np.empty(0, np.int64)  # of planes, whose rows are positions


def summarize(
    observed: Observed,
    profile: Profile,
    extremes: Extremes,
    meanwhile: Callable[[], None] = lambda: None,
) -> BatchSummary:
    """Adds a batch to the profile, hands its extreme values to `extremes` and returns the rest.

    meanwhile: what else the thread that asks has to do with the batch, while others have begun.
    """
    if not observed.x.is_cpu:
        backend = triton_summary if triton_summary.runs_on(observed.x.device) else torch_summary
        summary = backend.summarize(observed, profile, extremes)
        meanwhile()  # not before: where memory runs out, nothing may have been taken
        return summary
    work = _Work(profile, meanwhile)
    if isinstance(observed.norm, PlaneNorm):
        if observed.by_plane:
            return _summarize_planes(observed, observed.norm, work, extremes)
        work = _Work(Profile(), meanwhile) if observed.norm.fixed else work  # lines have none
        observed = observed.as_given_rows()
    assert not isinstance(observed.norm, PlaneNorm)
    return _summarize_rows(observed, observed.norm, work, extremes)


def _room_for_sums(observed: Observed) -> NDArray[np.float64]:
    """(B, ChannelSum, C), filled by the kernels."""
    return np.empty((len(observed.images), len(ChannelSum), observed.channels))


def _summarize_planes(
    observed: Observed, norm: PlaneNorm, work: _Work, extremes: Extremes
) -> BatchSummary:
    x = float32(observed.x)
    images, channels, _ = x.shape
    sums, flagged = _room_for_sums(observed), np.zeros((images, channels), np.uint8)
    outside = _Outside(images)
    not_finite = work.run(
        kernels.planes,
        (x, float32(norm.mean), float32(norm.scale), not norm.fixed, extremes.bounds),
        (sums, flagged, outside.room),
        observed,
    )
    if (most := outside.most) > ROOM:
        _collect_from_planes(x, flagged & outside.too_many[:, None], sums, extremes)
    if most:
        extremes.collect(*tail_kernels.packed(outside.room, _NOWHERE, _NOWHERE))
    return BatchSummary(sums, not_finite, None, None)


class _Outside:
    """The values outside of the bounds that the kernels met, by image."""

    def __init__(self, images: int) -> None:
        self._number = np.zeros(images, np.int64)
        rows, channels = np.empty((2, images, ROOM), np.int64)
        # what a kernel takes
        self.room = np.empty((images, ROOM), np.float32), rows, channels, self._number

    @property
    def most(self) -> int:
        """Of one image."""
        return max(self._number.tolist(), default=0)

    @property
    def too_many(self) -> NDArray[np.bool_]:
        """(B,) the images with more than there was room for; they are scanned again."""
        return self._number > ROOM


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
    starts: NDArray[np.int64]  # (B + 1,) where those of each image begin, and the end

    @classmethod
    def of(cls, valid: NDArray[np.bool_], kinds: NDArray[np.uint8]) -> _Places:
        """valid: (B, P)."""
        image, position = np.nonzero(valid)
        starts = np.searchsorted(image, np.arange(len(valid) + 1))
        return cls(image * len(kinds) + position, position, kinds[position], starts)


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
    rows = float32(tensor).reshape(-1, observed.channels)
    return rows if observed.valid is None else rows[places.index]


def _summarize_rows(
    observed: Observed, norm: TokenNorm | GivenNorm, work: _Work, extremes: Extremes
) -> BatchSummary:
    rows = _Rows.of(observed)
    places = rows.places
    sums, flagged = _room_for_sums(observed), np.zeros(len(rows.x), np.uint8)
    moments = np.empty((2, len(rows.x)))  # mean and sigma of each row
    outside = _Outside(len(observed.images))
    where = places.starts, places.kinds, extremes.bounds
    if isinstance(norm, GivenNorm):
        z = _valid_rows(norm.z, observed, places)
        what, into = (rows.x, z, *where), (sums, flagged, outside.room)
        not_finite = work.run(kernels.given_rows, what, into, observed)
    else:
        of_norm = (rows.x, norm.eps, norm.centered, *where)
        and_rows = (sums, moments, flagged, outside.room)
        not_finite = work.run(kernels.token_rows, of_norm, and_rows, observed)
    if (most := outside.most) > ROOM:
        extremes.start(sums)
        of_row = np.repeat(outside.too_many, np.diff(places.starts))
        _collect_from_rows(rows, flagged & of_row, observed.positions, extremes)
    if most:
        extremes.collect(*tail_kernels.packed(outside.room, places.starts, places.position))
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


def _collect_from_rows(
    rows: _Rows, flagged: NDArray[np.uint8], positions: int, extremes: Extremes
) -> None:
    def collect(values: NDArray, row: NDArray, channels: NDArray) -> None:
        image, position = np.divmod(rows.places.index[row], positions)
        extremes.collect(values, image, position, channels)

    capacity = max(CANDIDATES, rows.x.shape[1])
    _scan(rows.x, True, flagged, extremes, collect, capacity)


@dataclass(frozen=True)
class _Work:
    """Runs a kernel over the images of a batch, in this thread and its helpers: while it waits,
    torch's own threads would still spin.
    """

    profile: Profile
    meanwhile: Callable[[], None]  # this thread does that first

    def run(self, kernel: Callable[..., None], what: tuple, into: tuple, observed: Observed) -> int:
        """Returns how many elements are not finite."""
        order, starts, groups = _by_group(observed.groups.tobytes())
        self.profile.grow(1 + (observed.prefix_tokens > 0))
        turns, bad = np.zeros(2, np.int64), np.zeros(len(groups), np.int64)
        deal = turns, order, starts, groups
        work = functools.partial(kernel, deal, *what, self.profile.cells, *into, bad)
        helpers = min(torch.get_num_threads(), len(groups)) - 1
        crew(helpers).together(work, self.meanwhile, lambda: are_finished(turns, len(groups)))
        return sum(bad.tolist())


@functools.lru_cache(maxsize=64)
def _by_group(groups: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The images of a batch ordered by their jackknife group, where those of each group begin, and
    the groups.
    """
    of_image = np.frombuffer(groups, np.int64)
    order = np.argsort(of_image, kind="stable")
    present, starts = np.unique(of_image[order], return_index=True)
    return order, np.append(starts, len(order)), present


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

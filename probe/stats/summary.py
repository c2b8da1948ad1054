"""Reduce what a layer saw in one batch on the CPU, by the numba kernels; on other devices
`device_summary` does.

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

from probe.stats import kernels, outside, tail_kernels
from probe.stats.batch_summary import BatchSummary, Extremes
from probe.stats.crew import crew
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm, float32
from probe.stats.outside import Outside
from probe.stats.profile import Profile
from probe.stats.sums import ChannelSum
from probe.stats.turns import are_finished

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
    beyond = Outside(images)
    not_finite = work.run(
        kernels.planes,
        (x, float32(norm.mean), float32(norm.scale), not norm.fixed, extremes.bounds),
        (sums, flagged, beyond.room),
        observed,
    )
    if (too_many := beyond.too_many).any():
        outside.start(extremes, sums, None if not_finite else x, axis=2)
        outside.collect_from_planes(x, flagged & too_many[:, None], sums, extremes)
    if beyond:
        extremes.collect(*tail_kernels.packed(beyond.room, _NOWHERE, _NOWHERE))
    return BatchSummary(sums, not_finite, None, None)


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
    beyond = Outside(len(observed.images))
    where = places.starts, places.kinds, extremes.bounds
    if isinstance(norm, GivenNorm):
        z = _valid_rows(norm.z, observed, places)
        what, into = (rows.x, z, *where), (sums, flagged, beyond.room)
        not_finite = work.run(kernels.given_rows, what, into, observed)
    else:
        of_norm = (rows.x, norm.eps, norm.centered, *where)
        and_rows = (sums, moments, flagged, beyond.room)
        not_finite = work.run(kernels.token_rows, of_norm, and_rows, observed)
    if (too_many := beyond.too_many).any():
        all_count = observed.valid is None and not not_finite
        outside.start(extremes, sums, float32(observed.x) if all_count else None, axis=1)
        flagged &= np.repeat(too_many, np.diff(places.starts))
        outside.collect_from_rows(rows.x, flagged, places.index, observed.positions, extremes)
    if beyond:
        extremes.collect(*tail_kernels.packed(beyond.room, places.starts, places.position))
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

"""The tail: the extreme inputs of a layer, where the S-curve lives.

Kept are the `per_sign` largest and smallest inputs, at most `per_channel` of one channel and sign, and the 50 largest |input| whatever
their channel. Capped top-k sets merge exactly: the set of a union is the set of the union of the sets. Equal values are taken in the
order (image, position, channel) among those collected.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from probe.stats.records import Bounds

REGARDLESS = 50  # largest |input| kept whatever their channel

# `batch` is the image's place in the batch that is being read, -1 once normalized and output are filled in
ELEMENT = np.dtype(
    [(name, "i4") for name in ("image", "position", "channel", "batch")]
    + [(name, "f4") for name in ("value", "normalized", "output")]
)


def _rank_in_channel(channel: NDArray[np.int32]) -> NDArray[np.int64]:
    """How many earlier entries have the same channel."""
    order = np.argsort(channel, kind="stable")
    ordered = channel[order]
    first = np.searchsorted(ordered, ordered, side="left")
    rank = np.empty(len(channel), np.int64)
    rank[order] = np.arange(len(channel)) - first
    return rank


class Tail:
    """Capped extremes of one layer. `bounds` are the values per channel beyond which an element may still enter."""

    def __init__(self, channels: int, per_sign: int, per_channel: int) -> None:
        self.per_sign, self.per_channel = per_sign, per_channel
        self._kept = np.empty(0, ELEMENT)
        self._new: list[NDArray] = []
        self._pending = 0
        self.bounds: Bounds = (np.full(channels, np.inf, np.float32), np.full(channels, -np.inf, np.float32))

    def add(self, elements: NDArray) -> None:
        """Add ELEMENT records; compacts now and then."""
        self._new.append(elements)
        self._pending += len(elements)
        if self._pending > 4 * self.per_sign or not len(self._kept):
            self.compact()

    def resolve(self, look_up: Callable[[NDArray], tuple[NDArray, NDArray]]) -> None:
        """Fill in normalized and output of the elements that the current batch brought: look_up(elements) returns both."""
        for elements in (self._kept, *self._new):
            fresh = np.flatnonzero(elements["batch"] >= 0)
            if len(fresh):
                elements["normalized"][fresh], elements["output"][fresh] = look_up(elements[fresh])
                elements["batch"][fresh] = -1

    def merge(self, other: Tail) -> None:
        self.add(other.elements())

    def elements(self) -> NDArray:
        """The tail as ELEMENT records, sorted by value, then image, position, channel."""
        if self._new:
            self.compact()
        return self._kept

    def compact(self) -> None:
        """Reduce to the kept set and tighten the bounds."""
        every = np.concatenate([self._kept, *self._new])
        self._new, self._pending = [], 0
        every = every[np.lexsort((every["channel"], every["position"], every["image"], every["value"]))]
        place = (every["channel"], every["position"], every["image"])
        low, low_channel, smallest = self._extreme(every, np.arange(len(every)), np.float32(np.inf))
        high, high_channel, largest = self._extreme(every, np.lexsort((*place, -every["value"])), np.float32(-np.inf))
        magnitude = np.lexsort((*place, -np.abs(every["value"])))[:REGARDLESS]
        reach = np.abs(every["value"][magnitude[-1]]) if len(magnitude) == REGARDLESS else np.float32(-np.inf)
        self._kept = every[np.unique(np.concatenate([smallest, largest, magnitude]))]
        self.bounds = (
            np.maximum(np.minimum(low, low_channel), -reach).astype(np.float32),
            np.minimum(np.maximum(high, high_channel), reach).astype(np.float32),
        )

    def _extreme(
        self, every: NDArray, order: NDArray[np.int64], open_end: np.float32
    ) -> tuple[np.float32, NDArray[np.float32], NDArray[np.int64]]:
        """In `order` (most extreme first): bound of all, bound per channel, indices kept; a bound is `open_end` while there is room."""
        channel = every["channel"][order]
        rank = _rank_in_channel(channel)
        per_channel = np.full(len(self.bounds[0]), open_end, np.float32)
        full = rank == self.per_channel - 1
        per_channel[channel[full]] = every["value"][order[full]]
        kept = order[rank < self.per_channel][: self.per_sign]
        bound = every["value"][kept[-1]] if len(kept) == self.per_sign else open_end
        return bound, per_channel, kept

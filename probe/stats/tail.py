"""The tail: the extreme inputs of a layer, where the S-curve lives.

Kept are the `per_sign` largest and smallest inputs, at most `per_channel` of one channel and sign, and the 50 largest |input| whatever
their channel. Capped top-k sets merge exactly: the set of a union is the set of the union of the sets. Which of several equal values at
the edge of the set are kept depends on the order in which they came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probe.stats import kernels
from probe.stats.records import Bounds

REGARDLESS = 50  # largest |input| kept whatever their channel

# `batch` is the image's place in the batch that is being read, -1 once normalized and output are filled in
ELEMENT = np.dtype(
    [(name, "i4") for name in ("image", "position", "channel", "batch")]
    + [(name, "f4") for name in ("value", "normalized", "output")]
)


class Tail:
    """Capped extremes of one layer. `bounds` are the values per channel beyond which an element may still enter."""

    def __init__(self, channels: int, per_sign: int, per_channel: int) -> None:
        self.per_sign, self.per_channel = per_sign, per_channel
        self._channels = channels
        self._kept = np.empty(0, ELEMENT)
        self._new: list[NDArray] = []
        self._pending = 0
        self.bounds: Bounds = (np.full(channels, np.inf, np.float32), np.full(channels, -np.inf, np.float32))

    def start(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
        """First bounds from the extremes (B, C) of each image and channel, each the value of an element; nothing once bounds are set.

        The per_sign-th largest of them bounds what can enter: no channel counts more than its cap. It may enter itself.
        """
        if len(self._kept) or len(low) > self.per_channel or low.size < max(self.per_sign, REGARDLESS):
            return
        take = max(self.per_sign, REGARDLESS) - 1
        ends = np.array([np.partition(low, take, axis=None)[take], -np.partition(-high, take, axis=None)[take]], np.float32)
        if np.isfinite(ends).all():
            below, above = np.nextafter(ends, np.array([np.inf, -np.inf], np.float32))
            self.bounds = np.full(self._channels, below), np.full(self._channels, above)

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
        smallest, largest = self._arm(every, every["value"]), self._arm(every, -every["value"])
        ends = np.union1d(smallest.order[:REGARDLESS], largest.order[:REGARDLESS])
        farthest = ends[np.argsort(-np.abs(every["value"][ends]), kind="stable")][:REGARDLESS]
        reach = np.abs(every["value"][farthest[-1]]) if len(farthest) == REGARDLESS else np.float32(-np.inf)
        kept = every[np.unique(np.concatenate([smallest.kept, largest.kept, farthest]))]
        self._kept = kept[np.lexsort([kept[name] for name in ("channel", "position", "image", "value")])]
        low, high = np.maximum(smallest.bound, -reach), np.minimum(-largest.bound, reach)
        self.bounds = np.minimum(low, self.bounds[0]), np.maximum(high, self.bounds[1])

    def _arm(self, every: NDArray, key: NDArray[np.float32]) -> _Arm:
        """The capped set with the smallest keys."""
        order = np.argsort(key)
        kept, bound = np.empty(self.per_sign, np.int64), np.full(self._channels, np.inf, np.float32)
        count = kernels.capped(order, key, every["channel"], self.per_channel, kept, bound)
        return _Arm(order, kept[:count], bound)


class _Arm(NamedTuple):
    """One end of the tail: indices in order of the key, those kept, and per channel the key below which an element may enter."""

    order: NDArray[np.int64]
    kept: NDArray[np.int64]
    bound: NDArray[np.float32]

"""The tail: the extreme inputs of a layer, where the S-curve lives.

Kept are the `per_sign` largest and smallest inputs, at most `per_channel` of one channel and sign,
and the 50 largest |input| whatever their channel. Capped top-k sets merge exactly: the set of a
union is the set of the union of the sets. Of equal values at the edge of the set those of the first
images are kept, and of one image those that are read first: the set does not depend on how the
images were dealt out, as long as each worker saw its own in ascending order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probe.stats import tail_kernels
from probe.stats.batch_summary import Bounds
from probe.stats.capacity import with_capacity
from probe.stats.state import State, fitting

UNCAPPED = 50  # largest |input| kept whatever their channel

# one element; `batch` is the image's place in the batch that is being read, -1 once normalized and
# output are filled in
ELEMENT = np.dtype(
    [(name, "i4") for name in ("image", "position", "channel", "batch")]
    + [(name, "f4") for name in ("value", "normalized", "output")]
)

# an element as it lies in memory: numpy copies it as a whole, and a record field by field
_BYTES = np.dtype((np.void, ELEMENT.itemsize))


class Tail:
    """Capped extremes of one layer. `bounds` are the values per channel beyond which an element may
    still enter.
    """

    def __init__(self, channels: int, per_sign: int, per_channel: int) -> None:
        self.per_sign, self.per_channel = per_sign, per_channel
        # one block for good: small arrays that come and go between the activations of a model would
        # leave holes in the heap
        self._records = np.empty(_capacity(per_sign), ELEMENT)
        self._count = 0
        self._compact = False
        self._fresh = False  # is there one that the current batch brought?
        self.planes = False  # is an image read channel by channel? Else position by position
        self.bounds: Bounds = (
            np.full(channels, np.inf, np.float32),
            np.full(channels, -np.inf, np.float32),
        )

    @property
    def most(self) -> int:
        """So many values at most of one channel beyond one of its bounds can matter."""
        return max(self.per_channel, UNCAPPED)

    @property
    def parts(self) -> int:
        """How many values of one channel, at most, `start` takes; 0 once there are bounds."""
        return 0 if self._count else self.per_channel

    def start(self, low: NDArray[np.floating], high: NDArray[np.floating]) -> None:
        """First bounds from the ends (n, C) of n parts of the first images, each the value of an
        element; nothing where there are more than `parts`.

        The per_sign-th largest of them bounds what can enter: no channel counts more than its cap.
        It may enter itself.
        """
        if len(low) > self.parts or low.size < max(self.per_sign, UNCAPPED):
            return
        take = max(self.per_sign, UNCAPPED) - 1
        ends = np.array(
            [np.partition(low, take, axis=None)[take], -np.partition(-high, take, axis=None)[take]],
            np.float32,
        )
        if np.isfinite(ends).all():
            below, above = np.nextafter(ends, np.array([np.inf, -np.inf], np.float32))
            self.bounds[0][:], self.bounds[1][:] = below, above

    def add(self, elements: NDArray) -> None:
        """Add ELEMENT records; compacts when they do not fit."""
        self._fresh = True
        if not self._count or self._count + len(elements) > len(self._records):
            parts = [self._records[: self._count], elements]
            self._select(np.concatenate([part.view(_BYTES) for part in parts]).view(ELEMENT))
            return
        self._write(elements, self._count)
        self._compact = False

    def resolve(self, fill: Callable[[NDArray], None]) -> None:
        """Have normalized and output filled in, and batch set to -1, where the current batch
        brought an element: by fill(elements).
        """
        if self._fresh:
            fill(self._records[: self._count])
            self._fresh = False

    def merge(self, other: Tail) -> None:
        self.planes |= other.planes
        self.add(other.elements())

    def elements(self) -> NDArray:
        """The tail as ELEMENT records, sorted by value, then image, position, channel."""
        if not self._compact:
            self._select(self._records[: self._count])
        return self._records[: self._count]

    def __getstate__(self) -> dict[str, Any]:
        """Without the unused capacity."""
        return self.__dict__ | {"_records": self._records[: self._count]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._records = with_capacity(self._records, _capacity(self.per_sign))

    def state(self) -> State:
        low, high = self.bounds
        records = self._records[: self._count]
        flags = np.array([self._compact, self.planes])
        return {"records": records, "low": low, "high": high, "flags": flags}

    def restore(self, state: State) -> None:
        """Raises ValueError for a state that is none: the kernels trust their channels."""
        records = state["records"]
        channels = len(self.bounds[0])
        if records.dtype != ELEMENT or not np.isin(records["channel"], np.arange(channels)).all():
            raise ValueError("elements of another layer")
        self._count = len(records)
        self._compact, self.planes = map(bool, state["flags"])
        self._records = with_capacity(records, _capacity(self.per_sign))
        low, high = self.bounds
        self.bounds = fitting(state["low"], low), fitting(state["high"], high)

    def _select(self, every: NDArray) -> None:
        """Reduce to the kept set of `every` and tighten the bounds."""
        every = _as_read(_taken(every, self._may_stay(every)), self.planes)
        value, channel = np.ascontiguousarray(every["value"]), every["channel"]
        smallest, largest = self._arm(value, channel), self._arm(-value, channel)
        ends = np.zeros(len(every), bool)
        ends[smallest.order[:UNCAPPED]] = ends[largest.order[:UNCAPPED]] = True
        farthest = np.flatnonzero(ends)
        farthest = farthest[np.argsort(-np.abs(value[farthest]), kind="stable")][:UNCAPPED]
        full = len(farthest) == UNCAPPED
        reach = np.abs(value[farthest[-1]]) if full else np.float32(-np.inf)
        stays = np.zeros(len(every), bool)
        stays[smallest.kept] = stays[largest.kept] = stays[farthest] = True
        kept = _as_read(_taken(every, stays), False)
        self._write(_taken(kept, np.argsort(kept["value"], kind="stable")), 0)
        self._compact = True
        low, high = self.bounds
        np.minimum(low, np.maximum(smallest.bound, -reach), out=low)
        np.maximum(high, np.minimum(-largest.bound, reach), out=high)

    def _write(self, elements: NDArray, at: int) -> None:
        """The last of the records."""
        self._count = at + len(elements)
        self._records[at : self._count].view(_BYTES)[:] = elements.view(_BYTES)

    def _may_stay(self, every: NDArray) -> NDArray[np.bool_]:
        """(n,) A superset of what is kept that takes no sorting: elements as far out as the last of
        their end or of the farthest. The first batch brings thirty times as many.
        """
        value, channel = np.ascontiguousarray(every["value"]), every["channel"]
        may_stay = _among_smallest(-np.abs(value), UNCAPPED)
        for key in (value, -value):
            last = np.empty(len(self.bounds[0]), np.float32)
            tail_kernels.last_within_cap(key, channel, self.per_channel, last)
            within = np.flatnonzero(key <= last[channel])
            may_stay[within[_among_smallest(key[within], self.per_sign)]] = True
        return may_stay

    def _arm(self, key: NDArray[np.float32], channel: NDArray[np.int32]) -> _Arm:
        """The capped set with the smallest keys."""
        order = np.argsort(key, kind="stable")  # equal values stay in the order of reading
        kept = np.empty(self.per_sign, np.int64)
        bound = np.full(len(self.bounds[0]), np.inf, np.float32)
        count = tail_kernels.capped(order, key, channel, self.per_channel, kept, bound)
        return _Arm(order, kept[:count], bound)


def _as_read(elements: NDArray, planes: bool) -> NDArray:
    """In the order of reading: by image, of one image position by position, or channel by channel.
    One number says where an element stands, as those of a batch are mostly in order already.
    """
    image, position, channel = (
        elements[name].astype(np.int64) for name in ("image", "position", "channel")
    )
    positions, channels = position.max(initial=0) + 1, channel.max(initial=0) + 1
    inner = channel * positions + position if planes else position * channels + channel
    place = image * (positions * channels) + inner
    return _taken(elements, np.argsort(place, kind="stable"))


def _taken(elements: NDArray, which: NDArray) -> NDArray:
    """elements[which], indices or a mask."""
    taken: NDArray = elements.view(_BYTES)[which].view(ELEMENT)
    return taken


def _among_smallest(key: NDArray[np.float32], number: int) -> NDArray[np.bool_]:
    """(n,) Is it one of the `number` smallest, or equal to the last of them?"""
    if len(key) <= number:
        return np.ones(len(key), bool)
    return key <= np.partition(key, number - 1)[number - 1]


class _Arm(NamedTuple):
    """One end of the tail: indices in order of the key, those kept, and per channel the key below
    which an element may enter.
    """

    order: NDArray[np.int64]
    kept: NDArray[np.int64]
    bound: NDArray[np.float32]


def _capacity(per_sign: int) -> int:
    """Four times what is kept, so that candidates are seldom reduced."""
    return 8 * per_sign + UNCAPPED

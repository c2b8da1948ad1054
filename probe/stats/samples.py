"""Which (image, position) rows are kept, and the buffer that keeps them.

Every row has a key, a hash of (seed, image, position), and the N rows with the smallest keys are
kept: a uniform sample without replacement that is the same for any batch size, image order or
number of workers, and in all layers of equal grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probe.records import Plan
from probe.stats.capacity import with_capacity
from probe.stats.state import State

Key = NDArray[np.uint64]
LARGEST = np.uint64(0xFFFFFFFFFFFFFFFF)
CHUNK = 64  # images whose keys are looked at together


def _mix(h: Key) -> Key:
    """splitmix64 finalizer (Steele et al. 2014, https://doi.org/10.1145/2714064.2660195)."""
    h = h + np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def keys(seed: int, images: NDArray[np.int64], positions: int) -> Key:
    """Keys (B, P) of all positions of the given images."""
    start = np.array([seed % 2**64], dtype=np.uint64)
    image = _mix(_mix(start) ^ images.astype(np.uint64))
    return _mix(image[:, None] ^ np.arange(positions, dtype=np.uint64)[None])


def spare(size: int) -> int:
    """Rows drawn beyond `size`, so that a few broken images (3 %) cost none."""
    return size // 32 + 4


def _threshold(
    size: int, images: int | None, key_of: Callable[[NDArray[np.int64]], Key]
) -> np.uint64:
    """The key that bounds the smallest `size` of all planned rows and the spare ones; it saves
    copying rows that would be dropped.
    """
    if images is None:
        return LARGEST
    rank = size + spare(size)
    smallest = np.empty(0, np.uint64)
    for start in range(0, images, CHUNK):
        smallest = np.concatenate(
            [smallest, key_of(np.arange(start, min(start + CHUNK, images))).ravel()]
        )
        if len(smallest) > rank:
            smallest = np.partition(smallest, rank - 1)[:rank]
    return smallest.max() if len(smallest) == rank else LARGEST


@dataclass(frozen=True)
class CandidateRows:
    """Rows of one batch that may enter the samples: first those of the uniform draw, then those of
    the prefix draw; each (n,).
    """

    batch: NDArray[np.int64]  # image in the batch
    position: NDArray[np.int64]
    key: Key
    uniform: int  # so many are of the uniform draw

    def fewest(self, uniform: int, prefix: int) -> CandidateRows:
        """At most so many of each draw, in the same order: those whose keys are the smallest, as no
        other one can stay.
        """
        of_prefix = self.uniform + _smallest(self.key[self.uniform :], prefix)
        chosen = np.concatenate([_smallest(self.key[: self.uniform], uniform), of_prefix])
        if len(chosen) == len(self.key):
            return self
        number = len(chosen) - len(of_prefix)
        return CandidateRows(self.batch[chosen], self.position[chosen], self.key[chosen], number)


def _smallest(key: Key, size: int) -> NDArray[np.int64]:
    """Indices of at most `size` of the smallest keys, in ascending order."""
    if len(key) <= size:
        return np.arange(len(key))
    return np.sort(np.argpartition(key, size - 1)[:size])


class RowChoice:
    """The candidate rows of a grid of P positions whose first ones may be prefix tokens. Layers of
    equal grid share it.
    """

    def __init__(self, plan: Plan, kinds: NDArray[np.uint8]) -> None:
        self._seed, self._prefix, self._positions = plan.seed, np.flatnonzero(kinds), len(kinds)
        self._uniform_threshold = _threshold(plan.samples, plan.images, self._keys)
        self._prefix_threshold = _threshold(
            plan.prefix, plan.images, lambda images: self._prefix_keys(self._keys(images))
        )
        self._last: tuple[object, tuple[np.uint64, np.uint64], CandidateRows] | None = None

    def __call__(
        self,
        images: NDArray[np.int64],
        valid: NDArray[np.bool_] | None,
        below: tuple[np.uint64, np.uint64] = (LARGEST, LARGEST),
    ) -> CandidateRows:
        """Those whose keys are not above `below`, what the two draws have come down to; remembered
        for the next layer of the batch.
        """
        if self._last is not None and self._last[0] is images and valid is None:
            _, same, candidates = self._last
            if same == below:
                return candidates
        key = self._keys(images)
        usable = np.ones(key.shape, bool) if valid is None else valid
        uniform = np.nonzero(usable & (key <= min(self._uniform_threshold, below[0])))
        of_prefix = self._prefix_keys(key)
        may_enter = of_prefix <= min(self._prefix_threshold, below[1])
        b, index = np.nonzero(usable[:, self._prefix] & may_enter)
        candidates = CandidateRows(
            np.concatenate([uniform[0], b]),
            np.concatenate([uniform[1], self._prefix[index]]),
            np.concatenate([key[uniform], of_prefix[b, index]]),
            len(uniform[0]),
        )
        self._last = (images, below, candidates) if valid is None else None
        return candidates

    def _keys(self, images: NDArray[np.int64]) -> Key:
        return keys(self._seed, images, self._positions)

    def _prefix_keys(self, key: Key) -> Key:
        """Other keys than those of the uniform draw, else both would take the same rows."""
        return _mix(key[:, self._prefix])


class SampleBuffer:
    """The `size` rows with the smallest keys of one layer, and columns (n, C) of any types."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.below = LARGEST
        self._capacity = size + spare(size) + 16
        self._count = 0
        self._key = np.empty(self._capacity, np.uint64)
        self._where = np.empty((self._capacity, 2), np.int32)  # image, position
        self._columns: list[NDArray] = []
        self._in_order = True  # by image and position

    def add(
        self,
        key: Key,
        image: NDArray[np.int64],
        position: NDArray[np.int64],
        columns: Sequence[NDArray],
    ) -> None:
        """Add rows; columns are arrays whose first axis is the row."""
        if not len(key):
            return
        if not self._columns:
            # untouched pages cost nothing: a layer with few rows never pays for the capacity
            self._columns = [
                np.empty((self._capacity, *column.shape[1:]), column.dtype) for column in columns
            ]
        start, self._in_order = 0, False
        while start < len(key):
            part = slice(start, start + self._capacity - self._count)
            into = slice(self._count, self._count + len(key[part]))
            self._key[into] = key[part]
            self._where[into, 0], self._where[into, 1] = image[part], position[part]
            for mine, column in zip(self._columns, columns, strict=True):
                mine[into] = column[part]
            self._count = into.stop
            start += into.stop - into.start
            if self._count == self._capacity:
                self.settle()

    def merge(self, other: SampleBuffer) -> None:
        n = other._count
        if n:
            image, position = other._where[:n].astype(np.int64).T
            self.add(other._key[:n], image, position, [column[:n] for column in other._columns])

    def __getstate__(self) -> dict[str, Any]:
        """Without the unused capacity."""
        n = self._count
        filled = {"_key": self._key[:n], "_where": self._where[:n]}
        return self.__dict__ | filled | {"_columns": [column[:n] for column in self._columns]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._key = with_capacity(self._key, self._capacity)
        self._where = with_capacity(self._where, self._capacity)
        self._columns = [with_capacity(column, self._capacity) for column in self._columns]

    def state(self) -> State:
        """The rows as they lie, those of the spare capacity that fill it included."""
        n = self._count
        columns = {f"column{i}": column[:n] for i, column in enumerate(self._columns)}
        rows: State = {
            "key": self._key[:n],
            "where": self._where[:n],
            "below": np.array(self.below),
        }
        return rows | columns

    def restore(self, state: State) -> None:
        """Raises ValueError for a state that is none."""
        columns = [state[f"column{i}"] for i in range(len(state) - 3)]
        self._count, self.below = len(state["key"]), np.uint64(state["below"])
        self._key = with_capacity(state["key"].astype(np.uint64), self._capacity)
        self._where = with_capacity(state["where"].astype(np.int32), self._capacity)
        self._columns = [with_capacity(column, self._capacity) for column in columns]
        self._in_order = False

    def settle(self) -> None:
        """Drop all but the `size` smallest keys."""
        if self._count <= self.size:
            return
        self._keep(_smallest(self._key[: self._count], self.size))
        # a buffer of no rows takes none
        self.below = self._key[: self.size].max(initial=np.uint64(0))

    def _keep(self, chosen: NDArray[np.int64]) -> None:
        """The rows with these indices, in this order, and no others."""
        arrays: list[NDArray] = [self._key, self._where, *self._columns]
        for array in arrays:
            array[: len(chosen)] = array[chosen]
        self._count = len(chosen)

    def rows(self) -> tuple[NDArray[np.int32], NDArray[np.int32], list[NDArray]]:
        """Image (n,), position (n,) and the columns, sorted by (image, position): views, good until
        the next `add`.
        """
        self.settle()
        if not self._in_order:
            where = self._where[: self._count]
            order = np.lexsort((where[:, 1], where[:, 0]))
            if (order != np.arange(len(order))).any():  # batches may have come in any order
                self._keep(order)
            self._in_order = True
        n = self._count
        return self._where[:n, 0], self._where[:n, 1], [column[:n] for column in self._columns]

"""In which order the layers of a model are executed, the same however batches are dealt out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Key = tuple[str, int]  # module path, call in a forward pass from 1


class ExecutionOrder:
    """Calls in the order of their first batch, and in that batch as they came.

    order = ExecutionOrder()
    order.begin(batch=40)  # before each forward pass: where its batch stands among all
    order.see(("blocks.0.norm1", 1))  # at each call
    order.merge(another)  # of other batches
    for module_path, call in order: ...
    """

    def __init__(self) -> None:
        self._first: dict[Key, tuple[int, int]] = {}  # batch, calls before it in that pass
        self._batch = self._calls = 0

    def begin(self, batch: int) -> None:
        self._batch, self._calls = batch, 0

    def see(self, key: Key) -> None:
        self._add(key, (self._batch, self._calls))
        self._calls += 1

    def merge(self, other: ExecutionOrder) -> None:
        for key, place in other._first.items():
            self._add(key, place)

    def state(self) -> list[list[Any]]:
        """[module path, call, batch, calls before it in that pass] of each, for JSON."""
        return [[*key, *place] for key, place in self._first.items()]

    def restore(self, state: list[list[Any]]) -> None:
        self._first = {(str(path), int(call)): (batch, n) for path, call, batch, n in state}

    def _add(self, key: Key, place: tuple[int, int]) -> None:
        self._first[key] = min(place, self._first.get(key, place))

    def __iter__(self) -> Iterator[Key]:
        return iter(sorted(self._first, key=self._first.__getitem__))

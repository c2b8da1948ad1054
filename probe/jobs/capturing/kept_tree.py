"""The state of a capture whose workers live in other processes: the merged parts that came back."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

from probe.engines import Tree
from probe.stats.state import State, put_under, taken_from


class KeptTree:
    """A tree as a keeper takes it. What is under way counts for nothing: it is worked on again.

    before: called when a share has come, before it is in the tree.
    """

    def __init__(self, make_worker: Callable[[], Any], before: Callable[[], None]) -> None:
        self.tree = _Announcing(before)
        self._make_worker = make_worker

    def state(self) -> tuple[dict[str, Any], State]:
        """[level, place, facts] of each node, and arrays."""
        facts: list[Any] = []
        arrays: State = {}
        for number, (node, worker) in enumerate(self.tree.nodes.items()):
            said, kept = pickle.loads(worker).state()
            facts.append([*node, said])
            arrays |= put_under(str(number), kept)
        return {"nodes": facts}, arrays

    def restore(self, facts: Mapping[str, Any], arrays: State) -> None:
        """Raises KeyError, ValueError or TypeError for a state that is none."""
        for number, (level, place, said) in enumerate(facts["nodes"]):
            worker = self._make_worker()
            worker.restore(said, taken_from(str(number), arrays))
            self.tree.nodes[int(level), int(place)] = pickle.dumps(worker)


class _Announcing(Tree):
    def __init__(self, before: Callable[[], None]) -> None:
        super().__init__()
        self._before = before

    def put(self, number: int, worker: bytes) -> None:
        self._before()
        super().put(number, worker)


__all__ = ["KeptTree"]

"""Workers that come back from other processes, merged in a tree whose shape their numbers alone
decide.

Node (level, place) holds the shares place * 2^level up to the next place: two neighbours of one
level become their parent as soon as both are there. So the sums are added in the same order whoever
worked on which share and whichever came first, the result is the same to the bit, and a share that
is late holds up its own parents only. A tree of n shares has at most log2(n) nodes that wait, and
those beside shares that are still under way.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from typing import Any

Node = tuple[int, int]  # level, place in it


class Tree:
    """Nodes are kept as they travelled, pickled: that is a tenth of what they take unpacked.

    tree = Tree()
    tree.put(number, worker)  # pickled, once for each share, in any order
    tree.merged()  # the worker that holds all of them
    """

    def __init__(self, nodes: Mapping[Node, bytes] | None = None) -> None:
        self.nodes = dict(nodes or {})

    def __contains__(self, number: int) -> bool:
        """Is the share of this number in the tree?"""
        return any(number >> level == place for level, place in self.nodes)

    def __len__(self) -> int:
        """How many shares are."""
        return sum(1 << level for level, _ in self.nodes)

    def put(self, number: int, worker: bytes) -> None:
        """Raises ValueError for a share that is there already: it would count twice."""
        if number in self:
            raise ValueError(f"share {number} came twice")
        nodes, level = dict(self.nodes), 0
        while (neighbour := nodes.pop((level, number ^ 1), None)) is not None:
            first, second = (worker, neighbour) if number % 2 == 0 else (neighbour, worker)
            worker = _merged(first, second)
            level, number = level + 1, number >> 1
        nodes[level, number] = worker
        self.nodes = nodes  # all at once: whoever interrupts this loses no neighbour

    def merged(self) -> Any:
        """The worker of all shares; None where there is none."""
        whole = None
        for worker in self._in_order():
            other = pickle.loads(worker)
            if whole is None:
                whole = other
            else:
                whole.merge(other)
        return whole

    def _in_order(self) -> Iterator[bytes]:
        for _, node in sorted((place << level, (level, place)) for level, place in self.nodes):
            yield self.nodes[node]


def _merged(first: bytes, second: bytes) -> bytes:
    worker = pickle.loads(first)
    worker.merge(pickle.loads(second))
    return pickle.dumps(worker)


__all__ = ["Node", "Tree"]

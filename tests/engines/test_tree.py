"""Parts merge in a tree whose shape their numbers decide: the same bits in whatever order they
come.
"""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.engines import Tree
from support.properties import EXAMPLES


class Path:
    """Keeps how it was merged."""

    def __init__(self, name: str) -> None:
        self.name = name

    def merge(self, other: Path) -> None:
        self.name = f"({self.name} {other.name})"


def grown(order):
    tree = Tree()
    for number in order:
        tree.put(number, pickle.dumps(Path(str(number))))
    return tree


def test_neighbours_become_their_parents():
    assert grown(range(6)).merged().name == "(((0 1) (2 3)) (4 5))"


@EXAMPLES
@given(st.integers(1, 20).flatmap(lambda number: st.permutations(range(number))))
def test_the_order_of_arrival_does_not_change_the_order_of_merging(order):
    tree = grown(order)
    assert tree.merged().name == grown(range(len(order))).merged().name
    assert len(tree) == len(order)
    assert len(tree.nodes) == len(order).bit_count()


def test_a_late_share_holds_up_its_own_parents_only():
    tree = grown([0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])  # 3 is late
    assert sorted(tree.nodes) == [(0, 2), (1, 0), (2, 1), (3, 1)]
    assert 3 not in tree
    assert 5 in tree


def test_a_share_counts_once():
    tree = grown(range(4))
    for number in (0, 3):
        with pytest.raises(ValueError, match=f"share {number} came twice"):
            tree.put(number, b"")


def test_a_tree_without_shares_holds_nothing():
    assert Tree().merged() is None
    assert len(Tree()) == 0

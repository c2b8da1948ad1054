"""Layers are ordered as one forward pass after the other first calls them, whoever saw which."""

from __future__ import annotations

import pickle

import numpy as np

from probe.stats.execution_order import ExecutionOrder

# the calls of five forward passes of a model that does not always run all of its layers
PASSES = ["ab", "acb", "d", "eab", "fdc"]


def seen(batches):
    order = ExecutionOrder()
    for batch in batches:
        order.begin(batch)
        for name in PASSES[batch]:
            order.see((name, 1))
    return order


def names(order):
    return "".join(name for name, _ in order)


def test_layers_come_in_the_order_of_their_first_call():
    assert names(seen(range(5))) == "abcdef"


def test_any_split_over_orders_in_any_sequence_merges_to_the_same():
    random = np.random.default_rng(0)
    for _ in range(50):
        dealt = random.integers(0, 3, 5)
        parts = [seen(random.permutation(np.flatnonzero(dealt == part))) for part in range(3)]
        merged = parts[(first := int(random.integers(3)))]
        for part in random.permutation(3):
            if part != first:
                merged.merge(pickle.loads(pickle.dumps(parts[part])))
        assert names(merged) == "abcdef"

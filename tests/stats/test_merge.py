"""Accumulators merge to what one of them would hold that had seen everything: for any split of the
batches, any order and any grouping.
"""

from __future__ import annotations

import pickle
from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probe.records import Plan
from probe.stats.attention import HeadSums
from probe.stats.execution_order import ExecutionOrder
from probe.stats.layer import LayerStatistics
from probe.stats.observed import Observed
from probe.stats.samples import RowChoice
from support.observations import NORMS, assert_same_samples, observed, tokens
from support.properties import EXAMPLES, deals, merged

IMAGES, SIZE, CHANNELS = 18, 3, 5
BATCHES = IMAGES // SIZE
PLAN = Plan(images=IMAGES, samples=30, tail=80)


def batches_of(norm: str, steps: float | None) -> list[Observed]:
    """steps: values are whole multiples of 1/steps, so that many are equal."""
    x = tokens(IMAGES, 12, CHANNELS)
    x = x if steps is None else torch.round(x * steps) / steps
    return [observed(x[i : i + SIZE], norm, first=i) for i in range(0, IMAGES, SIZE)]


def accumulated(batches: list[Observed]) -> LayerStatistics:
    statistics = LayerStatistics(PLAN, CHANNELS)
    for batch in batches:
        statistics.update(batch, RowChoice(PLAN, batch.kinds))
    return statistics


def assert_close(got, expected):
    """To 1e-12 of the largest sum of its kind."""
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12 * largest)


def assert_same(got: LayerStatistics, expected: LayerStatistics) -> None:
    assert_same_samples(got, expected)
    for sums, others in zip(got.moments.sums, expected.moments.sums, strict=True):
        assert_close(sums, others)
    for cell in range(got.profile.sums.shape[-1]):
        assert_close(got.profile.sums[..., cell], expected.profile.sums[..., cell])
    np.testing.assert_allclose(astuple(got.scale), astuple(expected.scale), rtol=1e-12)
    for name in ("not_finite", "positions", "prefix_tokens"):
        assert getattr(got, name) == getattr(expected, name)


@pytest.mark.parametrize("steps", [None, 2], ids=["distinct values", "equal values"])
@pytest.mark.parametrize("norm", NORMS)
def test_statistics_of_a_layer_merge_in_any_split_order_and_grouping(norm, steps):
    batches = batches_of(norm, steps)
    whole = accumulated(batches)

    @EXAMPLES
    @given(deals(BATCHES), st.booleans(), st.data())
    def check(deal, pickled, data):
        parts = [accumulated([batches[number] for number in own]) for own in deal]
        if pickled:
            parts = [pickle.loads(pickle.dumps(part)) for part in parts]
        assert_same(merged(parts, data), whole)

    check()


@EXAMPLES
@given(deals(BATCHES), st.data())
def test_head_sums_merge_in_any_split_order_and_grouping(deal, data):
    # of one query patch each, whose distances differ little
    sums = 1 + 1e-3 * np.random.default_rng(0).random(size=(BATCHES, SIZE, 4, 5))
    sums[..., 0] = 1

    def summed(numbers):
        head = HeadSums(4)
        for number in numbers:
            head.update(sums[number])
        return head

    got, whole = merged([summed(own) for own in deal], data), summed(range(BATCHES))
    np.testing.assert_array_equal(got.images, whole.images)
    np.testing.assert_allclose(got.means(), whole.means(), rtol=1e-15)
    np.testing.assert_allclose(got.std(), whole.std(), rtol=1e-13)


@EXAMPLES
@given(deals(BATCHES), st.data())
def test_the_order_of_layers_merges_in_any_split_order_and_grouping(deal, data):
    calls = [[(f"layer{n}", 1) for n in range(number % 3, 4)] for number in range(BATCHES)]

    def seen(numbers):
        order = ExecutionOrder()
        for number in numbers:
            order.begin(number)
            for key in calls[number]:
                order.see(key)
        return order

    got, whole = merged([seen(own) for own in deal], data), seen(range(BATCHES))
    assert list(got) == list(whole)

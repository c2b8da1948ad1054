"""Uniform rows: a pure function of seed, image and position."""

from __future__ import annotations

import numpy as np
import pytest

from probe.records import Plan
from probe.stats.layer import LayerStatistics
from probe.stats.samples import RowChoice, keys
from support.observations import NORMS, observed, tokens


def sampled(batches, plan):
    statistics = LayerStatistics(plan, batches[0].channels)
    choice = RowChoice(plan, batches[0].kinds)
    for batch in batches:
        statistics.update(batch, choice)
    return statistics


def cut(x, size, order=None, norm="token"):
    order = np.arange(len(x)) if order is None else order
    batches = []
    for start in range(0, len(x), size):
        chosen = order[start : start + size]
        batch = observed(x[chosen], norm)
        batches.append(
            type(batch)(
                batch.x, batch.y, batch.norm, batch.channels_last, chosen, chosen % 16, batch.kinds
            )
        )
    return batches


def facts(rows):
    return rows.image.tolist(), rows.position.tolist(), rows.input.tobytes(), rows.output.tobytes()


@pytest.mark.parametrize("known", [True, False], ids=["known length", "unknown length"])
@pytest.mark.parametrize("norm", NORMS)
def test_same_rows_for_any_batch_size_and_order(norm, known):
    x = tokens(32, 9, 8)
    plan = Plan(images=32 if known else None, samples=40, seed=3)
    orders = (None, np.random.default_rng(0).permutation(32))
    runs = [sampled(cut(x, size, order, norm), plan) for size in (1, 7, 32) for order in orders]
    first = runs[0]
    assert len(first.rows(first.uniform).image) == 40
    for run in runs[1:]:
        assert facts(run.rows(run.uniform)) == facts(first.rows(first.uniform))
        assert facts(run.rows(run.prefix)) == facts(first.rows(first.prefix))


def test_knowing_the_length_changes_no_row():
    x = tokens(32, 9, 8)
    a, b = (sampled(cut(x, 8), Plan(images=n, samples=40)) for n in (32, None))
    assert facts(a.rows(a.uniform)) == facts(b.rows(b.uniform))


def test_a_small_layer_gives_all_its_rows():
    x = tokens(4, 5, 8)
    statistics = sampled(cut(x, 2), Plan(images=4, samples=512))
    np.testing.assert_array_equal(
        statistics.rows(statistics.uniform).input, x.reshape(20, 8).numpy()
    )


def test_merged_buffers_hold_the_rows_of_one_run():
    x = tokens(32, 9, 8)
    plan = Plan(images=32, samples=40)
    whole = sampled(cut(x, 8), plan)
    parts = [sampled([batch], plan) for batch in cut(x, 8)]
    for part in parts[1:]:
        parts[0].merge(part)
    assert facts(parts[0].rows(parts[0].uniform)) == facts(whole.rows(whole.uniform))


def test_prefix_rows_hold_prefix_tokens_only():
    x = tokens(32, 9, 8)
    rows = (statistics := sampled(cut(x, 8), Plan(images=32, samples=40))).rows(statistics.prefix)
    assert set(rows.position.tolist()) == {0}
    assert len(rows.image) == 5


def test_keys_are_uniform_over_images_and_positions():
    key = keys(7, np.arange(200), 50).astype(np.float64) / 2.0**64
    assert len(np.unique(key)) == key.size
    assert abs(key.mean() - 0.5) < 0.01
    assert np.abs(key.mean(axis=0) - 0.5).max() < 0.12
    assert abs(np.corrcoef(key[:-1].ravel(), key[1:].ravel())[0, 1]) < 0.03


def test_another_seed_draws_other_rows():
    x = tokens(32, 9, 8)
    a, b = (sampled(cut(x, 8), Plan(images=32, samples=40, seed=seed)) for seed in (0, 1))
    assert facts(a.rows(a.uniform)) != facts(b.rows(b.uniform))


def test_reading_settled_statistics_changes_nothing():
    """Two threads write samples while the tables are made from the same buffers."""
    statistics = sampled(cut(tokens(32, 9, 8), 8), Plan(images=None, samples=40))
    statistics.settle()
    buffers = (statistics.uniform, statistics.prefix)
    before = [
        (b._count, b._key.tobytes(), b._where.tobytes(), [c.tobytes() for c in b._columns])
        for b in buffers
    ]
    kept = statistics.tail.elements().tobytes()
    for buffer in buffers:
        statistics.rows(buffer)
    assert [
        (b._count, b._key.tobytes(), b._where.tobytes(), [c.tobytes() for c in b._columns])
        for b in buffers
    ] == before
    assert statistics.tail.elements().tobytes() == kept

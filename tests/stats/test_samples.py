"""Uniform rows: a pure function of seed, image and position."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from probe.records import Plan
from probe.stats.layer import LayerStatistics
from probe.stats.samples import RowChoice
from support.observations import NORMS, observed, tokens


def sampled(batches, plan):
    statistics = LayerStatistics(plan, batches[0].channels)
    choice = RowChoice(plan, batches[0].kinds)
    for batch in batches:
        statistics.update(batch, choice)
    return statistics


def cut(x, size, order=None, norm="token"):
    order = np.arange(len(x)) if order is None else order
    parts = [order[start : start + size] for start in range(0, len(x), size)]
    return [replace(observed(x[part], norm), images=part, groups=part % 16) for part in parts]


def facts(rows):
    return rows.image.tolist(), rows.position.tolist(), rows.input.tobytes(), rows.output.tobytes()


@pytest.mark.parametrize("images", [32, None], ids=["known length", "unknown length"])
@pytest.mark.parametrize("norm", NORMS)
def test_same_rows_for_any_batch_size_and_order(norm, images):
    x = tokens(32, 9, 8)
    plan = Plan(images=images, samples=40, seed=3)
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


def test_rows_are_sorted_and_each_is_the_row_of_its_image_and_position():
    x = tokens(32, 9, 8)
    order = np.random.default_rng(1).permutation(32)
    statistics = sampled(cut(x, 5, order), Plan(images=32, samples=40))
    rows = statistics.rows(statistics.uniform)
    place = np.stack([rows.image, rows.position], axis=1).tolist()
    assert place == sorted(place)
    assert len({tuple(pair) for pair in place}) == 40
    np.testing.assert_array_equal(rows.input, x.numpy()[rows.image, rows.position])


@pytest.mark.parametrize("restored", [False, True], ids=["as they are", "pickled"])
def test_merged_buffers_hold_the_rows_of_one_run(restored):
    x = tokens(32, 9, 8)
    plan = Plan(images=32, samples=40)
    whole = sampled(cut(x, 8), plan)
    parts = [sampled([batch], plan) for batch in cut(x, 8)]
    if restored:
        parts = pickle.loads(pickle.dumps(parts))
    for part in parts[1:]:
        parts[0].merge(part)
    assert facts(parts[0].rows(parts[0].uniform)) == facts(whole.rows(whole.uniform))


def test_prefix_rows_hold_prefix_tokens_only():
    x = tokens(32, 9, 8)
    rows = (statistics := sampled(cut(x, 8), Plan(images=32, samples=40))).rows(statistics.prefix)
    assert set(rows.position.tolist()) == {0}
    assert len(rows.image) == 5


def test_a_plan_without_room_for_prefix_rows_keeps_none():
    statistics = sampled(cut(tokens(32, 9, 8), 8), Plan(images=None, samples=4))
    assert len(statistics.rows(statistics.prefix).image) == 0
    assert len(statistics.rows(statistics.uniform).image) == 4


def drawn(seeds, images, positions, samples):
    """How often each (image, position) of a small layer is drawn over several seeds."""
    counts = np.zeros((images, positions))
    x = torch.zeros(images, positions, 1)
    for seed in range(seeds):
        statistics = sampled(cut(x, 8, norm="given"), Plan(images, samples=samples, seed=seed))
        rows = statistics.rows(statistics.uniform)
        counts[rows.image, rows.position] += 1
    return counts


def test_every_image_and_position_is_drawn_equally_often():
    """Chi-squared over 160 places: mean 159, standard deviation 18; without replacement less."""
    counts = drawn(seeds=300, images=16, positions=10, samples=40)
    assert counts.sum() == 300 * 40
    expected = 300 * 40 / 160
    variance = expected * (1 - 40 / 160)
    assert ((counts - expected) ** 2 / variance).sum() == pytest.approx(159, abs=5 * 18)
    of_positions, of_images = counts.sum(axis=0), counts.sum(axis=1)
    assert np.abs(of_positions / of_positions.mean() - 1).max() < 0.1
    assert np.abs(of_images / of_images.mean() - 1).max() < 0.12


def test_neighbours_and_consecutive_seeds_are_drawn_independently():
    """Whether a place is drawn says nothing of the next position, the next image, the next seed."""
    images, positions, samples = 64, 50, 1600
    x = torch.zeros(images, positions, 1)
    chosen = np.zeros((4, images, positions))
    for seed in range(4):
        statistics = sampled(cut(x, 64, norm="given"), Plan(images, samples=samples, seed=seed))
        rows = statistics.rows(statistics.uniform)
        chosen[seed, rows.image, rows.position] = 1
    for axis in range(3):
        near, next_one = (
            np.take(chosen, range(start, chosen.shape[axis] - 1 + start), axis).ravel()
            for start in (0, 1)
        )
        assert abs(np.corrcoef(near, next_one)[0, 1]) < 0.03


def test_another_seed_draws_other_rows():
    x = tokens(32, 9, 8)
    a, b = (sampled(cut(x, 8), Plan(images=32, samples=40, seed=seed)) for seed in (0, 1))
    assert facts(a.rows(a.uniform)) != facts(b.rows(b.uniform))


def everything(statistics):
    """The bytes of all that is kept, as it stands in the buffers."""
    return pickle.dumps((statistics.uniform, statistics.prefix, statistics.tail))


def test_reading_settled_statistics_changes_nothing():
    """Two threads write samples while the tables are made from the same buffers."""
    statistics = sampled(cut(tokens(32, 9, 8), 8), Plan(images=None, samples=40))
    statistics.settle()
    before = everything(statistics)
    for buffer in (statistics.uniform, statistics.prefix):
        statistics.rows(buffer)
    statistics.tail.elements()
    assert everything(statistics) == before

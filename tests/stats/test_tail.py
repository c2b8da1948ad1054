"""The tail is the capped top of everything seen, however it was dealt out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.records import Plan
from probe.stats.layer import LayerStatistics
from probe.stats.samples import RowChoice
from probe.stats.tail import UNCAPPED
from support.observations import NORMS, observed, tokens

PLAN = Plan(images=12, samples=5, tail=80)


def brute_force(x, plan):
    """Values of the tail of x (N, C) by sorting everything."""
    value, channel = x.ravel(), np.tile(np.arange(x.shape[1]), len(x))
    return np.sort(value[brute_force_indices(value, channel, plan)])


def brute_force_indices(value, channel, plan):
    """Which of the elements (n,), in the order in which they were read, are in the tail."""
    kept = set(np.argsort(-np.abs(value), kind="stable")[:UNCAPPED].tolist())
    for order in (np.argsort(value, kind="stable"), np.argsort(-value, kind="stable")):
        seen, taken = np.zeros(channel.max() + 1, int), []
        for index in order:
            if seen[channel[index]] < plan.tail_per_channel and len(taken) < plan.tail_per_sign:
                taken.append(int(index))
            seen[channel[index]] += 1
        kept |= set(taken)
    return sorted(kept)


def collected(batches, plan=PLAN):
    statistics = LayerStatistics(plan, batches[0].channels)
    choice = RowChoice(plan, batches[0].kinds)
    for batch in batches:
        statistics.update(batch, choice)
    return statistics


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("batch", [1, 5, 12])
def test_the_tail_is_the_capped_top_of_everything(norm, batch, monkeypatch):
    # many tightenings of the bounds within one image
    monkeypatch.setattr("probe.stats.outside.CANDIDATES", 64)
    x = tokens(12, 40, 15)
    statistics = collected([observed(x[i : i + batch], norm, first=i) for i in range(0, 12, batch)])
    np.testing.assert_array_equal(
        np.sort(statistics.tail.elements()["value"]), brute_force(x.reshape(-1, 15).numpy(), PLAN)
    )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("images", [1, 3])
def test_bounds_from_parts_of_the_first_images_keep_all_that_belongs_to_the_tail(norm, images):
    plan = Plan(images=images, samples=5, tail=320)
    x = tokens(images, 53, 40)  # 53: some positions are in no part
    statistics = collected([observed(x, norm)], plan)
    np.testing.assert_array_equal(
        np.sort(statistics.tail.elements()["value"]), brute_force(x.reshape(-1, 40).numpy(), plan)
    )


def test_tokens_that_enter_no_sum_do_not_push_others_out_of_the_tail():
    plan = Plan(images=2, samples=5, tail=320)
    x = tokens(2, 50, 40)
    x[:, :25] = 1e4
    x[:, :25, 7] = torch.inf
    elements = collected([observed(x, "token")], plan).tail.elements()
    counted = x[:, 25:].reshape(-1, 40).numpy()
    np.testing.assert_array_equal(np.sort(elements["value"]), brute_force(counted, plan))


@pytest.mark.parametrize("norm", NORMS)
def test_every_tail_element_knows_its_place_and_its_output(norm):
    x = tokens(12, 40, 15)
    whole = observed(x, norm)
    elements = collected(
        [observed(x[i : i + 4], norm, first=i) for i in range(0, 12, 4)]
    ).tail.elements()
    where = elements["image"], elements["position"], elements["channel"]
    y = whole.y.numpy() if whole.channels_last else whole.y.transpose(1, 2).numpy()
    np.testing.assert_array_equal(x.numpy()[where], elements["value"])
    np.testing.assert_array_equal(y[where], elements["output"])
    np.testing.assert_allclose(elements["normalized"], y[where] - 1, atol=3e-6)


def test_merging_gives_the_tail_of_the_union():
    x = tokens(12, 40, 15)
    parts = [collected([observed(x[i : i + 3], "given", first=i)]) for i in (6, 0, 9, 3)]
    for part in parts[1:]:
        parts[0].merge(part)
    np.testing.assert_array_equal(
        np.sort(parts[0].tail.elements()["value"]), brute_force(x.reshape(-1, 15).numpy(), PLAN)
    )


def test_a_layer_of_equal_values_keeps_no_more_than_its_share():
    x = tokens(4, 50, 15) * 0 + 3
    elements = collected([observed(x, "given")]).tail.elements()
    assert 0 < len(elements) <= PLAN.tail + UNCAPPED


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("batch", [1, 2])
def test_of_equal_values_those_that_were_read_first_are_kept(norm, batch):
    shape = 2, 60, 60  # so many channels that not each one is in the tail
    x = tokens(*shape).round()
    batches = [observed(x[i : i + batch], norm, first=i) for i in range(0, 2, batch)]
    got, planes = collected(batches).tail.elements(), batches[0].by_plane
    order = np.arange(x.numel()).reshape(shape)  # of an image position by position
    order = order.transpose(0, 2, 1).ravel() if planes else order.ravel()
    places = np.stack(np.unravel_index(order, shape), axis=1)
    value = x.numpy().ravel()[order]
    kept = brute_force_indices(value, places[:, 2], PLAN)
    expected = sorted((value[i], *places[i].tolist()) for i in kept)
    names = ("value", "image", "position", "channel")
    assert list(zip(*(got[name].tolist() for name in names), strict=True)) == expected

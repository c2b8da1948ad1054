"""Paired differences against a hand computation; times in turns; parts of the training images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from probe.training.comparing.statistics import paired_difference, spread
from probe.training.comparing.timing import forward_times
from probe.training.images import open_training_images
from probe.training.portions import Portions
from support.tiny_training import colour_folders


def test_a_paired_interval_is_that_of_students_t():
    # differences 1, 2, -1: mean 2/3, standard deviation 1.527525, t(2, 0.975) = 4.302653
    found = paired_difference({0: 50.0, 1: 52.0, 2: 51.0}, {0: 49.0, 1: 50.0, 2: 52.0, 7: 0.0})
    assert found.n == 3
    assert found.mean == pytest.approx(2 / 3)
    assert found.low == pytest.approx(2 / 3 - 3.794584, abs=1e-5)
    assert found.high == pytest.approx(2 / 3 + 3.794584, abs=1e-5)


def test_what_a_seed_does_to_both_norms_drops_out():
    values = {seed: 40.0 + 10 * seed for seed in range(3)}
    found = paired_difference({seed: each + 1 for seed, each in values.items()}, values)
    assert (found.mean, found.low, found.high) == pytest.approx((1, 1, 1))
    assert spread(values).std == pytest.approx(10)


def test_one_pair_has_no_interval_and_none_has_no_difference():
    assert paired_difference({0: 2.0}, {0: 1.5}) == (1, 0.5, None, None)
    assert paired_difference({0: 2.0}, {1: 1.5}) == (0, None, None, None)
    assert spread({0: 2.0}) == (1, 2.0, None)


def test_forward_times_are_ratios_to_the_reference_turn_by_turn():
    modules = {"one": nn.Linear(4, 4), "two": nn.Sequential(*[nn.Linear(4, 4)] * 40)}
    times = forward_times(modules, "one", torch.zeros(2, 4), turns=5)
    assert [times["one"][name] for name in ("forward_ratio", "forward_ratio_low")] == [1, 1]
    assert times["two"]["forward_ratio"] > 2
    assert times["two"]["forward_ratio_low"] <= times["two"]["forward_ratio"]


def test_portions_keep_the_shares_of_the_classes_and_do_not_overlap(tmp_path):
    images = open_training_images(str(colour_folders(tmp_path, images=20)), None)
    portions = Portions(train_images=30, held_back=0.2)
    chosen = portions.of(images)
    assert np.bincount(chosen.training.labels).tolist() == [8, 8, 8]
    assert np.bincount(chosen.validation.labels).tolist() == [2, 2, 2]
    assert not set(chosen.training.source.ids) & set(chosen.validation.source.ids)
    every = images.training.source.ids
    for part in (chosen.training, chosen.validation):
        place = every.index(part.source.ids[0])
        assert part.source.load(0).tobytes() == images.training.source.load(place).tobytes()
        assert part.labels[0] == images.training.labels[place]
    assert portions.of(images).training.source.ids == chosen.training.source.ids
    assert chosen.training.described["identity"] != images.training.described["identity"]
    assert len(Portions(val_images=6).of(images).validation) == 6

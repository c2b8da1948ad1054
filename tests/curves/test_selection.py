"""Intervals, statuses and ties."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from probe.curves import FAMILIES, interval, status_of, tied_with_best, without_curve
from probe.curves.selection import (
    Evidence,
    gain_interval,
    is_mixture,
    nested,
    sources_to_decide,
)
from probe.records import Fit, Status


def test_the_jackknife_interval_of_a_mean_is_the_t_interval_of_the_group_means() -> None:
    groups = np.random.default_rng(0).normal(3, 1, 16)
    left_out = (groups.sum() - groups) / 15
    low, high = interval(groups.mean(), left_out)
    half = 2.13145 * groups.std(ddof=1) / math.sqrt(16)
    assert (low, high) == (
        pytest.approx(groups.mean() - half, rel=1e-5),
        pytest.approx(groups.mean() + half, rel=1e-5),
    )


def test_no_interval_under_eight_groups_or_with_a_failed_replicate() -> None:
    assert interval(1.0, np.ones(7)) == (None, None)
    assert interval(1.0, np.ones(8)) == (1.0, 1.0)
    assert interval(1.0, np.array([1.0] * 8 + [np.nan])) == (None, None)
    assert gain_interval(0.1, np.full(7, 0.1)) == (None, None)


def test_the_interval_of_a_gain_is_that_of_its_logarithm() -> None:
    replicates = np.exp(np.random.default_rng(1).normal(math.log(0.01), 0.05, 16))
    low, high = gain_interval(0.01, replicates)
    log_low, log_high = interval(math.log(0.01), np.log(replicates))
    assert (low, high) == (pytest.approx(math.exp(log_low)), pytest.approx(math.exp(log_high)))


@pytest.mark.parametrize("gain", [0.0, -1e-12, 1e-8])
def test_a_gain_under_the_floor_is_bounded_by_nothing_and_by_the_floor(gain: float) -> None:
    low, high = gain_interval(gain, np.full(16, gain))
    assert low <= max(gain, 0)
    assert gain <= high == pytest.approx(2e-5)


def test_the_bounds_of_a_gain_stay_shares() -> None:
    low, high = gain_interval(0.5, np.array([1e-6, 0.9] * 8))
    assert 0 <= low < 0.5 < high == 1


@pytest.mark.parametrize(
    ("gain", "low", "high", "status"),
    [
        (0.02, 0.01, 0.04, "curved"),
        (0.02, 5e-4, 0.04, "curved"),
        (0.02, 4e-4, 0.04, "undetermined"),
        (0.0009, 0.0008, 0.00095, "linear"),
        (0.0009, 0.0008, 0.0011, "undetermined"),
        (0.0011, 0.00051, 0.002, "curved"),
        (0.0, 0.0, 1e-6, "linear"),
        (0.0, 0.0, 0.002, "undetermined"),
        (0.02, None, None, "undetermined"),
        (0.0, None, None, "undetermined"),
        (math.nan, None, None, "undetermined"),
    ],
)
def test_status_says_what_the_interval_of_the_gain_shows(gain, low, high, status) -> None:
    assert status_of(Evidence(gain, low, high, 0.03, 0.01, False, False)) == status
    stepped = status_of(Evidence(gain, low, high, 0.03, 0.01, False, True))
    assert stepped == ("step" if status == "curved" else status)


@pytest.mark.parametrize(
    ("convexity", "sure", "high", "status"),
    [
        (0.01, 0.005, 1e-6, "superlinear"),
        (0.01, -0.005, 1e-6, "linear"),
        (0.0019, 0.001, 1e-6, "linear"),
        (0.01, -0.005, 0.01, "undetermined"),
        (0.01, None, None, "undetermined"),
    ],
)
def test_a_map_that_bends_outward_is_superlinear_where_that_is_established(
    convexity, sure, high, status
) -> None:
    low = None if high is None else 0.0
    assert status_of(Evidence(0.0, low, high, convexity, sure, True, False)) == status


def test_about_so_many_images_would_decide() -> None:
    """Half the width of the interval on the log scale shrinks with the root of their number."""
    gain, half = 0.004, math.log(16)
    margin = math.log(gain / 5e-4)
    needed = sources_to_decide(gain, gain / 16, gain * 16, 32)
    assert needed == math.ceil(32 * (half / margin) ** 2)
    assert sources_to_decide(0.0005, 1e-5, 0.025, 32) > 32
    assert sources_to_decide(0.004, None, None, 4) is None
    assert sources_to_decide(0.02, 0.01, 0.04, 64) <= 64


def test_a_bend_of_the_whole_that_no_channel_has_is_a_mixture() -> None:
    layer = Fit("tanh", "layer", "population", Status.CURVED, gain=0.05, gain_low=0.03)
    straight = Fit("tanh", "channel", "population", Status.LINEAR, gain=0.0, gain_high=1e-6)
    bent = Fit("tanh", "channel", "population", Status.CURVED, gain=0.03, gain_high=0.04)
    unsure = Fit("tanh", "channel", "population", Status.UNDETERMINED, gain=0.03, gain_high=0.2)
    assert is_mixture(layer, straight)
    assert not is_mixture(layer, bent)
    assert not is_mixture(layer, unsure)
    assert not is_mixture(layer, None)
    assert not is_mixture(Fit("tanh", "layer", "population", Status.LINEAR, gain=0.0), straight)


def test_another_bend_is_a_mixture_where_the_lines_of_channels_beat_any_one_curve() -> None:
    layer = Fit("tanh", "layer", "population", Status.SUPERLINEAR, gain=0.0, r2_ceiling=0.62)
    channel = Fit(
        "tanh", "channel", "population", Status.LINEAR, gain=0.0, gain_high=1e-6, linear_r2=0.998
    )
    assert is_mixture(layer, channel)
    assert not is_mixture(replace(layer, r2_ceiling=0.999), channel)
    assert not is_mixture(layer, replace(channel, status=Status.CURVED))
    assert not is_mixture(replace(layer, linear_r2=0.6), replace(channel, gain_high=0.03))


@pytest.mark.parametrize(
    ("one", "other", "related"),
    [
        ("linear", "softsign", True),
        ("tanh", "tanh_shift", True),
        ("erf", "erf_shift", True),
        ("tanh", "erf_shift", False),
        ("tanh", "erf", False),
    ],
)
def test_a_special_case_of_a_family_is_nested_in_it(one: str, other: str, related: bool) -> None:
    assert nested(FAMILIES[one], FAMILIES[other]) is related
    assert nested(FAMILIES[other], FAMILIES[one]) is related


def families(*names: str) -> list:
    return [FAMILIES[name] for name in names]


def test_a_family_is_tied_when_the_paired_interval_of_the_log_ratio_reaches_zero() -> None:
    random = np.random.default_rng(1)
    scatter = np.exp(random.normal(0, 0.05, 16))
    missed = [0.10, 0.11, 0.101]
    replicates = [
        0.10 * scatter,
        0.11 * scatter,
        0.101 * scatter * np.exp(random.normal(0, 0.01, 16)),
    ]
    assert tied_with_best(families("tanh", "erf", "isru"), missed, replicates) == [
        False,
        False,
        True,
    ]


def test_nested_families_are_never_tied() -> None:
    alike = [np.full(16, 0.1)] * 3
    names = families("tanh_shift", "tanh", "linear")
    assert tied_with_best(names, [0.1, 0.1, 0.1], alike) == [False, False, False]


def test_without_an_interval_only_equal_families_are_tied() -> None:
    nothing = [np.zeros(0)] * 3
    names = families("tanh", "erf", "isru")
    assert tied_with_best(names, [0.1, 0.1 + 5e-7, 0.1 + 5e-6], nothing) == [False, True, False]
    assert tied_with_best([], [], []) == []


def test_a_row_without_a_curve_carries_its_status() -> None:
    fit = without_curve(Status.AFFINE, "tanh", count=12)
    assert (fit.status, fit.family, fit.alpha, fit.slope, fit.best, fit.count) == (
        "affine",
        "tanh",
        None,
        None,
        False,
        12,
    )

"""Intervals, statuses and ties."""

from __future__ import annotations

import math

import numpy as np
import pytest

from probe.curves import interval, status_of, tied_with_best, without_curve
from probe.curves.selection import Evidence


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


@pytest.mark.parametrize(
    ("evidence", "status"),
    [
        (Evidence(0.02, 0.01, 0.03, 0.01, False, False), "curved"),
        (Evidence(0.02, -0.01, 0.03, 0.01, False, False), "linear"),
        (Evidence(0.02, None, 0.03, None, False, False), "curved"),
        (Evidence(0.0009, 0.0008, 0.03, 0.01, False, False), "linear"),
        (Evidence(0.02, 0.01, 0.03, 0.01, False, True), "step"),
        (Evidence(0.0001, 0.0, 0.0, 0.0, False, True), "linear"),
        (Evidence(0.0, 0.0, 0.01, 0.005, True, False), "superlinear"),
        (Evidence(0.0, 0.0, 0.01, -0.005, True, False), "linear"),
        (Evidence(0.0, 0.0, 0.0019, 0.001, True, False), "linear"),
        (Evidence(math.nan, None, 0.0, None, False, False), "linear"),
    ],
)
def test_status_follows_gain_interval_and_bounds(evidence: Evidence, status: str) -> None:
    assert status_of(evidence) == status


def test_a_family_is_tied_when_the_paired_interval_of_the_difference_reaches_zero() -> None:
    random = np.random.default_rng(1)
    shared = random.normal(0, 0.05, 16)
    replicates = [0.9 + shared, 0.89 + shared, 0.899 + shared + random.normal(0, 0.002, 16)]
    assert tied_with_best([0.9, 0.89, 0.899], replicates) == [True, False, True]


def test_without_an_interval_only_equal_families_are_tied() -> None:
    nothing = [np.zeros(0)] * 3
    assert tied_with_best([0.9, 0.9 - 5e-7, 0.9 - 5e-6], nothing) == [True, True, False]
    assert tied_with_best([], []) == []


def test_a_row_without_a_curve_carries_its_status() -> None:
    fit = without_curve("affine", "tanh", count=12)
    assert (fit.status, fit.family, fit.alpha, fit.slope, fit.best, fit.count) == (
        "affine",
        "tanh",
        None,
        None,
        False,
        12,
    )

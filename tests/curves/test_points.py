"""The points that stand for bins: their sums are those of the elements, and weighting `range`
merges toward zero.
"""

from __future__ import annotations

import numpy as np
import pytest

from probe.bins import edges
from probe.curves.points import problem
from support.curve_maps import in_bins, normal_inputs


@pytest.mark.parametrize(
    "curve",
    [lambda x: 2 * x + 1, lambda x: np.tanh(0.8 * x), lambda x: x + 0.1 * x**3],
    ids=["line", "tanh", "cubic"],
)
def test_second_moments_of_the_points_are_those_of_the_elements(curve: object) -> None:
    """Single points at the bin means would miss 4e-5 of them."""
    x = normal_inputs(100_000)
    z = curve(x)  # type: ignore[operator]
    points = problem(in_bins(x, z), "population").total
    mean = points.w[0] @ points.x
    assert mean == pytest.approx(x.mean(), abs=1e-12)
    assert points.w[0] @ (points.x - mean) ** 2 == pytest.approx(x.var(), rel=1e-9)
    assert points.w[0] @ ((points.x - mean) * points.z[0]) == pytest.approx(
        np.cov(x, z, bias=True)[0, 1], rel=1e-9
    )
    assert points.between[0] <= z.var() * (1 + 1e-12)
    assert points.tss[0] == pytest.approx(z.var(), rel=1e-12)


def test_a_bin_with_one_element_is_that_element() -> None:
    x = np.array([-40.0, -7.3, 0.2, 1.0, 5.5, 90.0], dtype=np.float32).astype(float)
    points = problem(in_bins(x, np.sin(x)), "population").total
    np.testing.assert_allclose(np.sort(points.x), np.sort(np.concatenate([x, x])), rtol=1e-12)
    np.testing.assert_allclose(points.z[0], np.sin(points.x), rtol=1e-6)


def test_replicates_leave_one_group_out() -> None:
    x = normal_inputs(20_000)
    group = np.arange(20_000) % 5
    task = problem(in_bins(x, np.tanh(x), group), "population")
    assert task.groups == len(task.replicates.w) == 5
    kept = np.tanh(x[group != 3])
    assert np.vecdot(task.replicates.w, task.replicates.z)[3] == pytest.approx(
        kept.mean(), abs=1e-12
    )
    assert task.replicates.tss[3] == pytest.approx(kept.var(), rel=1e-10)
    assert len(problem(in_bins(x, x, group), "population", jackknife=False).replicates.w) == 0


def test_range_weighs_each_bin_by_its_width_inside_the_observed_range() -> None:
    x = np.repeat(np.array([1.01, 1.04, 1.07, 1.9]), 10).astype(np.float32).astype(float)
    binned = in_bins(x, x)
    points = problem(binned, "range").total
    lower, upper = edges(binned.bin)
    lower[0], upper[-1] = binned.min_x, binned.max_x
    np.testing.assert_allclose(points.w[0], (upper - lower) / (upper - lower).sum(), rtol=1e-12)


def test_range_merges_bins_under_ten_elements_inward() -> None:
    """From the outer end: 4 + 3 + 20 on the right, 9 + 12 on the left; 5 around zero join the
    innermost bin.
    """
    values, counts = [-8.0, -4.0, 0.5, 4.0, 8.0, 16.0], [9, 12, 5, 20, 3, 4]
    x = np.repeat(values, counts)
    points = problem(in_bins(x, x), "range").total
    means = [(-72 - 48 + 2.5) / 26, (80 + 24 + 64) / 27]
    np.testing.assert_allclose(points.x, means)


def test_range_keeps_every_element_whatever_the_counts() -> None:
    random = np.random.default_rng(3)
    for _ in range(200):
        kinds = random.integers(1, 9)
        x = (
            np.repeat(random.normal(0, 3, kinds), random.integers(1, 14, kinds))
            .astype(np.float32)
            .astype(float)
        )
        binned = in_bins(x, x)
        if binned.min_x == binned.max_x:
            continue
        task = problem(binned, "range")
        assert task.occupied == 1 or task.count >= 10 * task.occupied
        assert task.total.w.sum() == pytest.approx(1)
        assert np.all(np.diff(task.total.x) > 0)

"""The pooled line of an affine layer is least squares over every element."""

from __future__ import annotations

import numpy as np
import pytest

from probe.curves import pooled_line, sampled_ceiling


def test_the_pooled_line_is_least_squares_over_every_element() -> None:
    random = np.random.default_rng(0)
    x = (
        random.normal(random.normal(0, 2, 6), random.uniform(0.5, 3, 6), (5000, 6))
        .astype(np.float32)
        .astype(float)
    )
    slope, offset = random.uniform(0.2, 3, 6), random.normal(0, 1, 6)
    z = slope * x + offset
    fit = pooled_line(
        np.full(6, 5000.0), x.mean(axis=0), x.var(axis=0), slope, offset, sampled_ceiling(x, z)
    )
    expected = np.polyfit(x.ravel(), z.ravel(), 1)
    assert (fit.slope, fit.beta) == (
        pytest.approx(expected[0], rel=1e-10),
        pytest.approx(expected[1], rel=1e-9),
    )
    residual = z.ravel() - np.polyval(expected, x.ravel())
    assert fit.r2 == pytest.approx(1 - residual.var() / z.var(), rel=1e-10)
    assert fit.rmse == pytest.approx(residual.std(), rel=1e-9)
    assert fit.r2 < fit.r2_ceiling < 1
    assert (fit.status, fit.alpha) == ("affine", None)


def test_constant_channels_give_a_row_without_numbers() -> None:
    fit = pooled_line(
        np.full(2, 9.0),
        np.ones(2),
        np.zeros(2),
        np.ones(2),
        -np.ones(2),
        sampled_ceiling(np.ones(18), np.zeros(18)),
    )
    assert (fit.status, fit.slope, fit.count) == ("affine", None, 18)


def test_the_sampled_ceiling_is_what_a_curve_of_x_explains_and_not_what_chance_does() -> None:
    random = np.random.default_rng(1)
    x = random.normal(0, 1, 4000)
    noise = random.normal(0, 1, 4000)
    assert sampled_ceiling(x, np.tanh(2 * x)) == pytest.approx(1, abs=2e-3)
    assert sampled_ceiling(x, noise) == pytest.approx(0, abs=0.05)
    both = np.tanh(2 * x) + noise
    assert sampled_ceiling(x, both) == pytest.approx(1 - 1 / both.var(), abs=0.03)
    assert np.isnan(sampled_ceiling(np.empty((0, 4)), np.empty((0, 4))))

"""Variable projection: derivatives of the reduced objective, and Newton steps that end at the
optimum.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from probe.curves import FAMILIES
from probe.curves.points import problem
from probe.curves.varpro import (
    HIGHEST,
    LOWEST,
    bounds,
    evaluate,
    grid,
    grid_loss,
    lowest_cells,
    newton,
)
from support.curve_maps import in_bins, normal_inputs

CURVED = [name for name in FAMILIES if name != "linear"]


def noisy_points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    x = np.sort(random.normal(0, 2, 400))
    w = random.uniform(0.5, 1.5, (1, 400))
    return x, w / w.sum(), (np.tanh(0.7 * x + 0.4) + random.normal(0, 0.2, 400))[None]


@pytest.mark.parametrize("name", [name for name in CURVED if name != "hardtanh"])
def test_gradient_and_hessian_agree_with_differences(name: str) -> None:
    family, (x, w, z) = FAMILIES[name], noisy_points()
    theta, h = np.array([[-0.5, 0.3]])[:, : 1 + family.shifted], 1e-4
    state = evaluate(family, theta, x, w, z)
    for i in range(theta.shape[1]):
        step = h * np.eye(theta.shape[1])[i]
        ahead, behind = (
            evaluate(family, theta + step, x, w, z),
            evaluate(family, theta - step, x, w, z),
        )
        np.testing.assert_allclose(
            state.gradient[0, i], (ahead.loss - behind.loss)[0] / (4 * h), atol=1e-8
        )
        np.testing.assert_allclose(
            state.hessian[0, i], (ahead.gradient - behind.gradient)[0] / (2 * h), atol=1e-7
        )


@pytest.mark.parametrize("name", CURVED)
def test_grid_loss_is_the_loss_at_the_starts(name: str) -> None:
    x = normal_inputs(3000)
    task = problem(in_bins(x, np.tanh(x + 0.2)), "population")
    family = FAMILIES[name]
    starts = grid(family, task.max_abs)
    loss = grid_loss(family, starts, task.coarse)
    assert loss.shape == (17, *starts.shape[:2])
    for b in (0, 5):
        some = starts.reshape(-1, starts.shape[-1])[::7]
        each = [
            evaluate(
                family, t[None], task.coarse.x, task.coarse.w[b : b + 1], task.coarse.z[b : b + 1]
            ).loss[0]
            for t in some
        ]
        np.testing.assert_allclose(loss[b].ravel()[::7], each, rtol=1e-6, atol=1e-9)


def test_grid_spans_the_bounds() -> None:
    for name in CURVED:
        alphas = np.exp(grid(FAMILIES[name], 7.0)[..., 0])
        assert alphas.min() * 7 == pytest.approx(LOWEST)
        assert alphas.max() * 7 == pytest.approx(HIGHEST)


def test_lowest_cells_are_the_deepest_local_minima_first() -> None:
    assert lowest_cells(np.array([3.0, 1.0, 2.0, 0.5, 4.0, 0.7])[:, None]).tolist() == [3, 5, 1]
    assert lowest_cells(np.array([[1.0, 9.0, 9.0], [9.0, 9.0, 0.0]]), most=1).tolist() == [5]


def test_newton_ends_within_1e_8_of_the_optimum_and_at_a_bound_where_it_lies_outside() -> None:
    """Two problems with their own optimum, solved at once: one inside the box, one beyond its upper
    bound.
    """
    family, x = FAMILIES["tanh"], np.linspace(-3, 3, 101)
    w = np.full((2, 101), 1 / 101)
    z = np.tanh(np.array([[0.6], [40.0]]) * x)
    lower, upper = bounds(family, 100.0)

    theta, state = newton(
        lambda t, which: evaluate(family, t, x, w[which], z[which]),
        np.array([[-1.0], [0.5]]),
        lower,
        upper,
    )
    assert theta[0, 0] == pytest.approx(math.log(0.6), abs=1e-8)
    assert theta[1, 0] == pytest.approx(upper[0])
    assert state.gamma[0] == pytest.approx(1)

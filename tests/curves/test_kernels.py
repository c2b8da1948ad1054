"""The compiled sums against the same in numpy, float64."""

from __future__ import annotations

import numpy as np
import pytest

from probe.curves.kernels import (
    accept,
    add_products,
    add_value_products,
    explained,
    propose,
    reduced_objective,
)


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_products_are_summed_over_rows(kind):
    rng = np.random.default_rng(0)
    u, f, slope, bend = rng.standard_normal((4, 37, 5)).astype("f4")
    z, origin = rng.standard_normal((37, 5)).astype(kind), rng.standard_normal(5).astype("f4")
    sums = np.ones((10, 5))
    add_products(u, f, slope, bend, origin, z, sums)
    u, f, slope, bend, z, origin = (v.astype("f8") for v in (u, f, slope, bend, z, origin))
    d, e = f - origin, slope * u
    b = bend * u * u + e
    expected = [d, d * d, d * z, e, e * e, d * e, e * z, b, d * b, b * z]
    np.testing.assert_allclose(sums - 1, [each.sum(axis=0) for each in expected], atol=2e-4)


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_values_are_summed_over_rows(kind):
    rng = np.random.default_rng(2)
    f, z = rng.standard_normal((2, 37, 5)).astype(kind)
    origin, sums = rng.standard_normal(5).astype(kind), np.ones((3, 5))
    add_value_products(f, origin, z, sums)
    d, z = (f - origin).astype("f8"), z.astype("f8")
    np.testing.assert_allclose(sums - 1, [v.sum(axis=0) for v in (d, d * d, d * z)], atol=2e-4)


@pytest.mark.parametrize("parameters", [1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_the_reduced_objective_and_its_derivatives(parameters, shared):
    rng = np.random.default_rng(1)
    f, slope, bend = rng.standard_normal((3, 3, 40))
    x, alpha = rng.standard_normal(40), np.array([0.3, 1.0, 2.0])
    ax = alpha[:, None] * x
    first = np.stack([slope * ax, slope])[:parameters]
    second = np.array([[bend * ax * ax + slope * ax, bend * ax], [bend * ax, bend]])
    w = rng.random((1 if shared else 3, 40))
    w, z = w / w.sum(axis=1, keepdims=True), rng.standard_normal(w.shape)
    row = np.zeros(3, int) if shared else np.array([2, 0, 1])
    out = [np.empty((3, *(parameters,) * axes)) for axes in (0, 1, 2, 0, 0)]
    reduced_objective(x, alpha, f, slope, bend, w, z, row, *out)
    loss, gradient, hessian, gamma, beta = out
    for b in range(3):
        wb, zb = w[row[b]], z[row[b]]
        design = np.stack([f[b], np.ones(40)], axis=1)
        solved = np.linalg.lstsq(design * np.sqrt(wb)[:, None], zb * np.sqrt(wb), rcond=None)[0]
        np.testing.assert_allclose([gamma[b], beta[b]], solved)
        r, d = zb - design @ solved, f[b] - wb @ f[b]
        np.testing.assert_allclose(loss[b], wb @ r**2)
        a = [gamma[b] * wb @ (d * each) - wb @ (r * each) for each in first[:, b]]
        for i in range(parameters):
            np.testing.assert_allclose(gradient[b, i], -gamma[b] * wb @ (r * first[i, b]))
            for j in range(i, parameters):
                one, other = first[i, b], first[j, b]
                covariance = wb @ (one * other) - (wb @ one) * (wb @ other)
                expected = gamma[b] ** 2 * covariance - gamma[b] * wb @ (r * second[i, j, b])
                expected -= a[i] * a[j] / (wb @ d**2)
                np.testing.assert_allclose([hessian[b, i, j], hessian[b, j, i]], expected)


def test_what_each_curve_explains_of_each_map():
    rng = np.random.default_rng(3)
    f, w, z = rng.standard_normal((4, 30)), rng.random((3, 30)), rng.standard_normal((3, 30))
    w, out = w / w.sum(axis=1, keepdims=True), np.empty((4, 3))
    explained(f, w, w * (z - (w * z).sum(axis=1, keepdims=True)), out)
    for s in range(4):
        for b in range(3):
            (variance, shared), _ = np.cov(f[s], z[b], aweights=w[b], ddof=0)
            np.testing.assert_allclose(out[s, b], shared**2 / variance)


def proposed(theta, gradient, hessian, damping=0.0):
    """The step from one theta in the box of -2 to 2."""
    step = np.empty((1, len(theta)))
    box, rest = np.full(len(theta), 2.0), np.array([damping])
    arrays = (np.array([each], float) for each in (theta, gradient, hessian))
    propose(*arrays, rest, -box, box, np.zeros(1, int), step)
    return step[0]


def test_a_step_is_that_of_newton_with_curvatures_by_their_size():
    hessian, gradient = np.array([[2.0, 0.7], [0.7, -1.0]]), np.array([0.3, 0.2])
    size, axes = np.linalg.eigh(hessian)
    downhill = -axes @ ((axes.T @ gradient) / np.abs(size))
    np.testing.assert_allclose(proposed([0, 0], gradient, hessian), downhill)
    damped = -axes @ ((axes.T @ gradient) / (np.abs(size) + 0.5 * np.abs(size).max()))
    np.testing.assert_allclose(proposed([0, 0], gradient, hessian, 0.5), damped)
    np.testing.assert_allclose(proposed([0], [0.3], [[-2.0]]), [-0.15])


def test_a_step_is_no_longer_than_1_stays_in_the_box_and_rests_at_a_bound_it_would_leave():
    np.testing.assert_allclose(proposed([0, 0], [4.0, -8.0], np.eye(2)), [-0.5, 1])
    np.testing.assert_allclose(proposed([1.5], [-0.7], [[1.0]]), [0.5])
    coupled = np.array([[2.0, 0.7], [0.7, 1.0]])
    np.testing.assert_allclose(proposed([2, 0], [-1.0, 0.2], coupled), [0, -0.2])
    np.testing.assert_allclose(proposed([0, -2], [0.4, 1.0], coupled), [-0.2, 0])


def test_a_trial_is_taken_where_the_loss_does_not_grow_and_damped_elsewhere():
    theta, damping, active = np.array([[1.0], [2.0]]), np.array([0.8, 0.0]), np.array([0, 1])
    kept = (np.full(2, 5.0), np.ones((2, 1)), np.ones((2, 1, 1)), np.zeros(2), np.zeros(2))
    fresh = (np.array([4.0, 6.0]), *(np.full_like(v, 9) for v in kept[1:]))
    accept(theta, kept, damping, active, np.array([[7.0], [7.0]]), fresh)
    assert theta.ravel().tolist() == [7, 2]
    assert [v.ravel().tolist() for v in kept] == [[4, 5], [9, 1], [9, 1], [9, 0], [9, 0]]
    np.testing.assert_allclose(damping, [0.1, 0.1])

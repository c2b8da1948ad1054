"""The compiled sums against the same in numpy, float64."""

from __future__ import annotations

import numpy as np
import pytest

from probe.curves.kernels import add_products, reduced_objective


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


@pytest.mark.parametrize("parameters", [1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_the_reduced_objective_and_its_derivatives(parameters, shared):
    rng = np.random.default_rng(1)
    f, first, second = (
        rng.standard_normal((*size, 3, 40))
        for size in ((), (parameters,), (parameters, parameters))
    )
    w = rng.random((1 if shared else 3, 40))
    w, z = w / w.sum(axis=1, keepdims=True), rng.standard_normal(w.shape)
    out = [np.empty((3, *(parameters,) * axes)) for axes in (0, 1, 2, 0, 0)]
    reduced_objective(f, first, second, w, z, *out)
    loss, gradient, hessian, gamma, beta = out
    for b in range(3):
        wb, zb = w[b % len(w)], z[b % len(z)]
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

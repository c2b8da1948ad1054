"""The exact optimum of hardtanh against a search over every alpha."""

from __future__ import annotations

import numpy as np
import pytest

from probe.curves.corners import hardtanh_optimum


def losses(t: np.ndarray, x: np.ndarray, w: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The loss of one map at every log alpha t."""
    f, z = np.clip(np.exp(t)[:, None] * x, -1, 1), z - w @ z
    d = f - (f @ w)[:, None]
    return w @ z**2 - (d @ (w * z)) ** 2 / (d * d @ w)


@pytest.mark.parametrize("noise", [0.0, 0.3, 2.0])
def test_no_alpha_has_less_loss(noise):
    rng = np.random.default_rng(0)
    x = rng.standard_t(3, 60)
    x[3], x[10] = 0, x[11]
    w = rng.random((4, 60))
    w /= w.sum(axis=1, keepdims=True)
    z = np.clip(0.8 * x, -1, 1) + rng.normal(0, noise, (4, 60)) + 0.2
    lower, upper = np.log(np.array([1e-3, 300]) / np.abs(x).max())
    grid, best = np.linspace(lower, upper, 20_001), hardtanh_optimum(x, w, z, lower, upper)
    for b in range(4):
        assert (
            losses(best[b : b + 1], x, w[b], z[b])[0] <= losses(grid, x, w[b], z[b]).min() + 1e-12
        )
    if not noise:
        np.testing.assert_allclose(best, np.log(0.8))


def test_an_optimum_beyond_the_bounds_is_at_the_bound():
    x = np.linspace(-3, 3, 61)
    w, z = np.full((1, 61), 1 / 61), np.clip(5 * x, -1, 1)[None]
    assert hardtanh_optimum(x, w, z, -3.0, 1.0)[0] == pytest.approx(1.0)

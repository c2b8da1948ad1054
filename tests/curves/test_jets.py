"""The compiled curves against scipy, in both precisions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from probe.curves import jets

CURVES = {
    "tanh": (jets.tanh, np.tanh, lambda u: 1 / np.cosh(u) ** 2),
    "erf": (jets.erf, special.erf, lambda u: 2 / math.sqrt(math.pi) * np.exp(-u * u)),
    "isru": (jets.isru, lambda u: u / np.sqrt(1 + u * u), lambda u: (1 + u * u) ** -1.5),
}


def inputs(kind: str) -> np.ndarray:
    """Both signs, from far inside the straight part to where the curves end."""
    rng = np.random.default_rng(0)
    size = np.concatenate([10.0 ** rng.uniform(-7, 0, 3000), rng.uniform(0, 21, 6000)])
    return (size * rng.choice([-1, 1], len(size))).astype(kind)


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize(("kind", "error"), [("f4", 3e-7), ("f8", 8e-16)])
def test_values_and_slopes_are_exact_to_a_few_units_in_the_last_place(name, kind, error):
    jet, value, slope = CURVES[name]
    u = inputs(kind)
    f, first, _ = jet(u)
    u = u.astype("f8")
    np.testing.assert_allclose(f, value(u), rtol=error)
    np.testing.assert_allclose(first, slope(u), rtol=0, atol=2 * error)


@pytest.mark.parametrize("name", CURVES)
def test_single_precision_has_no_bias_where_a_curve_is_nearly_straight(name):
    """The error is that of rounding, which averages out; a bias would bend every map."""
    jet, value, _ = CURVES[name]
    u = np.random.default_rng(1).uniform(0.01, 0.3, 20_000).astype("f4")
    assert abs((jet(u)[0] / value(u.astype("f8")) - 1).mean()) < 3e-8


@pytest.mark.parametrize("name", CURVES)
def test_a_jet_keeps_the_shape_and_takes_any_layout(name):
    u = np.random.default_rng(2).standard_normal((6, 8)).astype("f4")
    whole = CURVES[name][0](u)
    for each, part in zip(whole, CURVES[name][0](u.T[::2]), strict=True):
        assert each.shape == u.shape
        np.testing.assert_array_equal(part, each.T[::2])
    assert CURVES[name][0](np.array(1))[0].shape == ()


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_what_is_no_number_stays_none_and_infinity_is_the_end(name):
    f, slope, _ = CURVES[name][0](np.array([np.nan, np.inf, -np.inf]))
    assert np.isnan(f[0])
    assert (f[1:].tolist(), slope[1:].tolist()) == ([1, -1], [0, 0])

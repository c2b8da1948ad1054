"""Every curve family, against finite differences and its own definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from probe.curves import FAMILIES, families_of, family_of, predict
from probe.errors import UsageError

ORDER = [
    "linear",
    "tanh",
    "erf",
    "isru",
    "arctan",
    "softsign",
    "hardtanh",
    "tanh_shift",
    "erf_shift",
]
POINTS = np.array(
    [-4.1, -1.3, -0.6, -0.05, 0.02, 0.4, 1.7, 3.3]
)  # away from the corners of hardtanh


def test_the_registry_holds_the_families_in_order() -> None:
    assert list(FAMILIES) == ORDER
    assert [name for name, family in FAMILIES.items() if family.shifted] == [
        "tanh_shift",
        "erf_shift",
    ]


@pytest.mark.parametrize("name", ORDER)
def test_first_and_second_derivative_agree_with_differences(name: str) -> None:
    family, h = FAMILIES[name], 1e-4
    value, slope, bend = family.jet(POINTS)
    ahead, behind = family.value(POINTS + h), family.value(POINTS - h)
    np.testing.assert_allclose(value, family.value(POINTS), rtol=1e-14)
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), atol=1e-7)
    np.testing.assert_allclose(bend, (ahead - 2 * value + behind) / h**2, atol=1e-5)
    np.testing.assert_array_equal(family.derivative(POINTS), slope)


@pytest.mark.parametrize("name", ORDER)
def test_slope_at_zero_and_half_slope_are_those_of_the_curve(name: str) -> None:
    family = FAMILIES[name]
    assert float(family.derivative(np.array(0.0))) == pytest.approx(family.slope_at_zero, rel=1e-12)
    if math.isfinite(family.half_slope):
        around = (
            family.derivative(
                np.array([family.half_slope * 0.999999, family.half_slope * 1.000001])
            )
            / family.slope_at_zero
        )
        assert around[0] >= 0.5 >= around[1]


@pytest.mark.parametrize("name", ORDER)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_curves_are_odd_finite_and_keep_the_dtype(name: str, dtype: type) -> None:
    u = np.array([-1e4, -30, -1, 0, 1, 30, 1e4], dtype=dtype)
    for each in FAMILIES[name].jet(u):
        assert each.dtype == dtype
        assert np.isfinite(each).all()
    np.testing.assert_array_equal(FAMILIES[name].value(u), -FAMILIES[name].value(-u))


def test_an_unknown_family_names_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"family 'tanhh' is unknown \(did you mean tanh.*known: linear, tanh"
    ):
        family_of("tanhh")
    assert [family.name for family in families_of(["erf", "tanh", "erf"])] == ["erf", "tanh"]


def test_predict_is_the_curve_of_a_fit() -> None:
    x = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(
        predict("tanh_shift", x, 0.5, 0.3, 2.0, -1.0), 2 * np.tanh(0.5 * x + 0.3) - 1
    )
    np.testing.assert_allclose(predict("isru", x, 0.5, None, 2.0, 0.0), x / np.sqrt(1 + x * x / 4))

"""The map that stands in for a layer, and the arithmetic that leads to it."""

from __future__ import annotations

import numpy as np
import pytest

from probe.curves import FAMILIES, StandIn, family_of

AFFINE = (np.array([0.5, -2.0, 1.5]), np.array([1.0, 0.0, -3.0]))
X = np.linspace(-4, 4, 33)[:, None]


def output(stand_in: StandIn) -> np.ndarray:
    u = stand_in.alpha * X + stand_in.shift
    return stand_in.weight * family_of(stand_in.family).value(u) + stand_in.bias


@pytest.mark.parametrize("gamma", [2.0, np.array([2.0, 3.0, -1.0])], ids=["layer", "channel"])
def test_a_fitted_curve_goes_through_the_affine_of_the_layer(gamma: float | np.ndarray) -> None:
    stand_in = StandIn.of_fit(
        "norm", "erf_shift", alpha=0.7, shift=0.2, gamma=gamma, beta=0.4, affine=AFFINE
    )
    z = gamma * family_of("erf").value(0.7 * X + 0.2) + 0.4
    np.testing.assert_allclose(output(stand_in), AFFINE[0] * z + AFFINE[1], rtol=1e-12)


def line() -> StandIn:
    stand_in = StandIn.of_line(
        "norm", slope=np.array([1.0, 2.0, 3.0]), offset=0.5, max_abs=4.0, affine=AFFINE
    )
    assert stand_in is not None
    return stand_in


def test_a_line_is_exact() -> None:
    expected = AFFINE[0] * (np.array([1.0, 2.0, 3.0]) * X + 0.5) + AFFINE[1]
    np.testing.assert_allclose(output(line()), expected, rtol=1e-12)
    assert line().is_line


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_hold_a_line_in_its_straight_part(name: str) -> None:
    held = line().as_family(name)
    rise, expected = output(held) - held.bias, output(line()) - line().bias
    assert held.family == name
    np.testing.assert_allclose(rise, expected, rtol=1.3e-3)


def test_a_curve_is_no_other_family() -> None:
    curve = StandIn("norm", "tanh", 1.0, 0.0, *AFFINE)
    assert curve.as_family("tanh") is curve
    with pytest.raises(ValueError, match="a curve of family tanh is none of family erf"):
        curve.as_family("erf")


@pytest.mark.parametrize(
    ("slope", "offset", "max_abs"),
    [(np.nan, 0.0, 1.0), (1.0, np.inf, 1.0), (1.0, 0.0, 0.0), (1.0, 0.0, np.nan)],
)
def test_what_is_not_finite_is_no_line(slope: float, offset: float, max_abs: float) -> None:
    assert (
        StandIn.of_line("norm", slope=slope, offset=offset, max_abs=max_abs, affine=AFFINE) is None
    )

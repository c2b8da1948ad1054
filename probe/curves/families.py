"""The curve families: element-wise S-curves f(u), u = alpha * x (+ shift), and the straight line.

tanh is the curve of DyT (https://arxiv.org/abs/2503.10622), erf with a shift that of Derf
(https://arxiv.org/abs/2512.10938), isru u / sqrt(1 + u^2) is what RMSNorm and LayerNorm do to one
element while the others stay where they are. Every function keeps the shape and the dtype of u.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from probe.curves import jets
from probe.curves.corners import hardtanh_optimum
from probe.curves.jets import Array, Jet
from probe.errors import unknown

MAX_SHIFT = 3.0  # |shift| of the shifted families
LINE = "linear"  # the family of a line
LINE_REACH = 0.05  # f'(0) |u| within which tanh, erf and isru are straight to about 0.1 %


@dataclass(frozen=True)
class Family:
    """One curve, and all that is said of it: a new family is one more entry of `FAMILIES`.

    Which normalizers can start as it, their classes say (`families` in probe.norms).
    """

    name: str
    jet: Callable[[Array], Jet]  # f, f' and f'' in one go
    value: Callable[[Array], Array]  # f alone, which is quicker
    half_slope: float  # the u > 0 where f' falls under half of f'(0)
    shifted: bool = False  # has a shift to be fitted, f(alpha x + shift)
    line_reach: float = LINE_REACH  # f'(0) |u| within which f is as good as its tangent
    # x, w, z, bounds -> log alpha, where corners make many shallow minima
    optimum: Callable[..., NDArray[np.float64]] | None = None

    @cached_property
    def slope_at_zero(self) -> float:
        """f'(0): 2 / sqrt(pi) for erf, 1 for the others."""
        return float(self.derivative(np.array(0.0)))

    def derivative(self, u: Array) -> Array:
        """f'(u)."""
        return self.jet(u)[1]


def _linear(u: Array) -> Jet:
    return u, np.ones_like(u), np.zeros_like(u)


def _erf_value(u: Array) -> Array:
    return jets.erf(u)[0]


def _isru_value(u: Array) -> Array:
    return u / np.sqrt(1 + u * u)


def _arctan(u: Array) -> Jet:
    slope = 1 / (1 + u * u)
    return np.arctan(u), slope, -2 * u * slope * slope


def _softsign_value(u: Array) -> Array:
    return u / (1 + np.abs(u))


def _softsign(u: Array) -> Jet:
    inverse = 1 / (1 + np.abs(u))
    slope = inverse * inverse
    return u * inverse, slope, -2 * np.sign(u) * slope * inverse


def _hardtanh_value(u: Array) -> Array:
    return np.clip(u, -1, 1)


def _hardtanh(u: Array) -> Jet:
    return np.clip(u, -1, 1), (np.abs(u) < 1).astype(u.dtype), np.zeros_like(u)


_TANH_HALF = math.atanh(math.sqrt(0.5))  # 0.8814
_ERF_HALF = math.sqrt(math.log(2))

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("linear", _linear, np.array, math.inf),
        Family("tanh", jets.tanh, np.tanh, _TANH_HALF),
        Family("erf", jets.erf, _erf_value, _ERF_HALF),
        Family("isru", jets.isru, _isru_value, math.sqrt(2 ** (2 / 3) - 1)),
        Family("arctan", _arctan, np.arctan, 1.0),
        Family("softsign", _softsign, _softsign_value, math.sqrt(2) - 1, line_reach=1e-3),
        Family("hardtanh", _hardtanh, _hardtanh_value, 1.0, optimum=hardtanh_optimum),
        Family("tanh_shift", jets.tanh, np.tanh, _TANH_HALF, shifted=True),
        Family("erf_shift", jets.erf, _erf_value, _ERF_HALF, shifted=True),
    )
}


def family_of(name: str) -> Family:
    """The family of that name; UsageError with the known names for any other."""
    if name not in FAMILIES:
        raise unknown("family", name, FAMILIES)
    return FAMILIES[name]


def families_of(names: Iterable[str]) -> list[Family]:
    """The families of these names in the order given, each once."""
    return [family_of(name) for name in dict.fromkeys(names)]


def predict(
    name: str, x: Array, alpha: float, shift: float | None, gamma: float, beta: float
) -> Array:
    """gamma * f(alpha * x + shift) + beta, the curve of a fit (for pictures)."""
    return gamma * family_of(name).value(alpha * x + (shift or 0.0)) + beta

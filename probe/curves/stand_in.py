"""An element-wise map in place of a whole normalization layer, its affine included.

    output = w z + b   and   z ~ gamma f(alpha x + shift) + beta
    give   output ~ (w gamma) f(alpha x + shift) + (w beta + b)

with w, b the layer's own weight and bias (C,), gamma and beta one per channel or one per layer.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probe.curves.families import family_of

Floats = NDArray[np.float64]
Affine = tuple[Floats, Floats]  # weight and bias of a layer (C,)

LINE = "linear"
# alpha * max|x| of a line. Inside it a tanh (or erf, or isru) is straight to 0.1 %, so that each of
# them can stand for the line.
LINE_REACH = 0.05


@dataclass(frozen=True, eq=False)
class StandIn:
    """output = weight * f(alpha * x + shift) + bias, f the curve of `family`; weight, bias (C,).

    StandIn.of_fit("norm", "tanh", alpha=0.3, gamma=4.1, beta=0.0, affine=(weight, bias))
    """

    layer: str
    family: str  # of probe.curves.FAMILIES
    alpha: float
    shift: float
    weight: Floats
    bias: Floats

    @classmethod
    def of_fit(
        cls,
        layer: str,
        family: str,
        *,
        alpha: float,
        shift: float = 0.0,
        gamma: Floats | float,
        beta: Floats | float,
        affine: Affine,
    ) -> StandIn:
        """A fitted curve of z, behind it the layer's affine."""
        weight, bias = affine
        return cls(layer, family, float(alpha), float(shift), weight * gamma, weight * beta + bias)

    @classmethod
    def of_line(
        cls,
        layer: str,
        *,
        slope: Floats | float,
        offset: Floats | float,
        max_abs: float,
        affine: Affine,
    ) -> StandIn | None:
        """The line z = slope * x + offset of inputs up to `max_abs`; None where it is not finite.

        It is written with alpha = LINE_REACH / max_abs, so that a curve can take its place.
        """
        if not max_abs > 0 or not np.isfinite(slope).all() or not np.isfinite(offset).all():
            return None
        alpha = LINE_REACH / max_abs
        return cls.of_fit(layer, LINE, alpha=alpha, gamma=slope / alpha, beta=offset, affine=affine)

    @property
    def is_line(self) -> bool:
        return self.family == LINE

    def as_family(self, name: str) -> StandIn:
        """The same map as a curve of another family: a line as the straight part of that curve.

        f(u) ~ f'(0) u for small u, so alpha / f'(0) takes the place of alpha. Raises ValueError
        for a curve, which no other family is.
        """
        if name == self.family:
            return self
        if not self.is_line:
            raise ValueError(f"a curve of family {self.family} is none of family {name}")
        alpha = self.alpha / family_of(name).slope_at_zero
        return dataclasses.replace(self, family=name, alpha=alpha)

"""An element-wise map in place of a whole normalization layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class StandIn:
    """An element-wise map in place of a whole layer, its affine included: output = weight * f(alpha
    * x + shift) + bias.

    f by `form`: tanh, erf, isru (u / sqrt(1 + u^2)), or line (f(u) = u). A line comes with so small
    an alpha * max|x| that each of the three curves, divided by its slope at zero, can play it.
    """

    layer: str
    form: str
    alpha: float
    shift: float
    weight: Any  # numpy array (C,)
    bias: Any  # numpy array (C,)

"""From a row of the fits table to the curve on the page.

`z = gamma * f(alpha * x + shift) + beta` where the row has an alpha (DyT,
https://arxiv.org/abs/2503.10622, for f = tanh); the line `z = slope * x + beta` where it has none.
Nothing is fitted here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probe.formatting import number, r_squared, typeset
from probe.records import Status, main_fits

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """The family to draw: its name in the fits table and its f, e.g. `FAMILIES["erf"].value` of
    probe.curves.
    """

    family: str = "tanh"
    value: Callable[[Any], Any] = np.tanh


TANH = Shape()


def pick(
    fits: pd.DataFrame | None,
    layer: str,
    family: str = "tanh",
    *,
    scope: str = "layer",
    weighting: str = "population",
    tokens: str = "all",
) -> dict[str, Any] | None:
    """The one row asked for as a dict; None where the table has none."""
    if fits is None or fits.empty:
        return None
    rows = main_fits(
        fits, layer=layer, family=family, scope=scope, weighting=weighting, tokens=tokens
    )
    return None if rows.empty else {str(k): v for k, v in rows.iloc[0].items()}


def get(row: dict[str, Any] | None, column: str) -> float:
    """A number of the row; NaN for null or a missing column."""
    value = None if row is None else row.get(column)
    return math.nan if value is None or pd.isna(value) else float(value)


def abscissa(low: float, high: float, alpha: float = math.nan, points: int = 300) -> Array:
    """x values from low to high, dense around the bend at 1/alpha too."""
    x = np.linspace(low, high, points)
    if math.isfinite(alpha) and alpha > 0:
        bend = np.linspace(-4, 4, 161) / alpha
        x = np.unique(np.concatenate([x, bend[(bend > low) & (bend < high)]]))
    return x


def evaluate(row: dict[str, Any] | None, x: Array, shape: Shape = TANH) -> Array | None:
    """z at x; None where the row has neither alpha nor slope (constant, too few, not finite)."""
    alpha, gamma, slope = get(row, "alpha"), get(row, "gamma"), get(row, "slope")
    beta = _zero(get(row, "beta"))
    if math.isfinite(alpha) and math.isfinite(gamma):
        return np.asarray(
            gamma * shape.value(alpha * x + _zero(get(row, "shift"))) + beta, dtype=np.float64
        )
    return slope * x + beta if math.isfinite(slope) else None


def summary(
    row: dict[str, Any] | None, decimals: int = 3, interval: bool = False, narrow: bool = False
) -> str:
    """One line for above a panel: `α 0.069  R² 0.951/0.974` (curve / ceiling), in parentheses where
    the curve is not established, or the slope where there is no alpha.
    """
    if row is None:
        return ""
    alpha, slope = get(row, "alpha"), get(row, "slope")
    parts = []
    if math.isfinite(alpha):
        parts.append(f"\u03b1 {number(alpha)}")
        low, high = get(row, "alpha_low"), get(row, "alpha_high")
        if interval and math.isfinite(low) and math.isfinite(high):
            parts[-1] += f" [{number(low)}, {number(high)}]"
        if str((row or {}).get("status", Status.CURVED)) != Status.CURVED:
            parts[-1] = f"({parts[-1]})"
    elif math.isfinite(slope):
        parts.append(f"slope {number(slope, 2 if narrow else 3)}")
    r2 = get(row, "r2" if math.isfinite(alpha) else "linear_r2")  # of what is drawn
    if math.isfinite(r2):
        ceiling = get(row, "r2_ceiling")
        over = f"/{_r2(ceiling, decimals, narrow)}" if math.isfinite(ceiling) else ""
        parts.append(f"R\u00b2 {_r2(r2, decimals, narrow)}{over}")
    return typeset((" " if narrow else "  ").join(parts))


def _r2(value: float, decimals: int, narrow: bool) -> str:
    """`narrow`: no zero before the point."""
    text = r_squared(value, decimals)
    return text.replace("0.", ".", 1) if narrow and abs(value) < 1 else text


def _zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0

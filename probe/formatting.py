"""Values as text: as JSON (null where a number is missing), and short for a cell of a table, a
sentence or a figure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def missing(cell: Any) -> bool:
    """None, NaN, NaT and pandas.NA; infinity is a value."""
    return (
        cell is None
        or type(cell).__name__ in ("NAType", "NaTType")
        or (isinstance(cell, float) and math.isnan(cell))
    )


def plain(value: Any) -> Any:
    """`value` as JSON knows it: no NaN, no infinity, no numpy, anything unknown as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    if missing(value) or (isinstance(value, float) and math.isinf(value)):
        return None
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def json_text(value: Any, ascii_only: bool = False) -> str:
    """`value` as JSON, one item a line, for people and for files."""
    return json.dumps(plain(value), indent=1, ensure_ascii=ascii_only, allow_nan=False)


def json_bytes(value: Any) -> bytes:
    """`value` as a JSON file: ASCII, so that the same content gives the same bytes."""
    return (json_text(value, ascii_only=True) + "\n").encode("ascii")


def records(frame: Any) -> list[dict[str, Any]]:
    """A data frame as a list of rows with plain values."""
    return [
        {str(name): plain(cell) for name, cell in zip(frame.columns, row, strict=True)}
        for row in frame.itertuples(index=False, name=None)
    ]


def number(value: Any, digits: int = 3) -> str:
    """`digits` significant digits, zeros kept so that columns align; `-` for a missing value.

    Powers of ten only below 0.0001 and from 10000 on, with two digits: `1.2e-6`.
    """
    if missing(value):
        return "-"
    if math.isinf(value):
        return str(float(value))
    if value and not 1e-4 <= abs(value) < 1e4:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    rounded = abs(float(f"{value:.{digits - 1}e}"))  # 9.996 has the decimals of 10.0
    before_point = math.floor(math.log10(rounded)) + 1 if rounded else 1
    return f"{value:.{max(0, digits - before_point)}f}"


def whole(value: Any) -> str:
    """A whole number, which tables may hold as a float."""
    return "-" if missing(value) else str(int(value))


def thousands(value: Any) -> str:
    """A large count: `532,480`."""
    return "-" if missing(value) else f"{int(value):,}"


def r_squared(value: Any, decimals: int = 3) -> str:
    """R2, rounded. What would round to 1 but is below it reads `>0.999`.

    Rounded and not cut, as any other number is, so that a reader who rounds the value in a file
    finds what stands on the page; but 1.000 says that a curve is exact, which is true of a line per
    channel in BatchNorm and of nothing that merely fits well. Sums of floats may miss 1 by 1e-9.
    """
    return "-" if missing(value) else _rounded(value, 1, decimals)


def percent(value: Any) -> str:
    """A share of 1 in per cent with one decimal; below 10 two significant digits, because shares of
    extreme elements span magnitudes. As with R2, only all of them are `100.0`.
    """
    if missing(value):
        return "-"
    return number(100 * value, 2) if abs(100 * value) < 9.95 else _rounded(100 * value, 100, 1)


def _rounded(value: float, most: float, decimals: int) -> str:
    """`value` rounded; `>` and the number before `most` where rounding alone would reach it."""
    if value < most * (1 - 1e-9) and round(value, decimals) >= most:
        return f">{most - 10**-decimals:.{decimals}f}"
    return f"{value:z.{decimals}f}"


def typeset(text: str) -> str:
    """With the minus sign of typography, as matplotlib writes its ticks."""
    return text.replace("-", "\u2212")

"""Values as text: as JSON (null where a number is missing), and short for a cell of a table or a
sentence.
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


def json_bytes(value: Any) -> bytes:
    """`value` as a JSON file: one item a line, ASCII, so that the same content gives the same
    bytes.
    """
    return (json.dumps(plain(value), indent=1, allow_nan=False) + "\n").encode("ascii")


def records(frame: Any) -> list[dict[str, Any]]:
    """A data frame as a list of rows with plain values."""
    return [
        {str(name): plain(cell) for name, cell in zip(frame.columns, row, strict=True)}
        for row in frame.itertuples(index=False, name=None)
    ]


def number(value: Any, digits: int = 3) -> str:
    """`digits` significant digits, zeros kept so that columns align; `-` for a missing value."""
    if missing(value):
        return "-"
    text = f"{value:#.{digits}g}"
    if "e" not in text:
        return text.rstrip(".")
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def share(value: Any) -> str:
    """A share of 1 in per cent, two digits."""
    return "-" if missing(value) else number(100 * value, 2)


def quality(value: Any) -> str:
    """R2 with three decimals, cut and not rounded, so that 0.9996 does not read as perfect."""
    if missing(value):
        return "-"
    return f"{min(value, 0.9999):.4f}"[:5] if 0 <= value < 1 else f"{value:.3f}"

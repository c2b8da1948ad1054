"""Values as text: as JSON (null where a number is missing), and short for a cell of a table, a
sentence or a figure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

# what steers a terminal, a spreadsheet or the direction of writing, and what no encoding takes
CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str, keep: str = "") -> str:
    """`text` with its control characters written out (`\\x1b`), but for those in `keep`. Names of
    layers, images and models come from files and may hold anything.
    """

    def written_out(match: re.Match[str]) -> str:
        return match[0] if match[0] in keep else _escape(match[0])

    return CONTROL.sub(written_out, text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


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
    text = json.dumps(plain(value), indent=1, ensure_ascii=ascii_only, allow_nan=False)
    return CONTROL.sub(lambda c: c[0] if c[0] == "\n" else f"\\u{ord(c[0]):04x}", text)


def json_bytes(value: Any) -> bytes:
    """`value` as a JSON file: ASCII, so that the same content gives the same bytes."""
    return (json_text(value, ascii_only=True) + "\n").encode("ascii")


def records(frame: Any) -> list[dict[str, Any]]:
    """A data frame as a list of rows with plain values."""
    return [
        {str(name): plain(cell) for name, cell in zip(frame.columns, row, strict=True)}
        for row in frame.itertuples(index=False, name=None)
    ]


# a spreadsheet runs a cell that begins so; the apostrophe tells it that the cell is text
_FORMULA = ("=", "+", "-", "@", "'")
_ESCAPED = re.compile(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4}|[nrt])")


def csv_bytes(frame: Any, header: bool = True) -> bytes:
    """A data frame as a CSV file: texts hold no control character and are no formula of a
    spreadsheet. `from_csv_cell` reads them back.
    """
    texts = frame.map(lambda cell: csv_cell(cell) if isinstance(cell, str) else cell)
    text = texts.to_csv(index=False, header=header, lineterminator="\n")
    return str(text).encode("utf-8")


def csv_cell(text: str) -> str:
    if CONTROL.search(text) or "\\" in text:
        text = CONTROL.sub(lambda c: _escape(c[0]), text.replace("\\", "\\\\"))
    return f"'{text}" if text.startswith(_FORMULA) else text


def from_csv_cell(text: str) -> str:
    """What `csv_cell` was given."""
    text = text.removeprefix("'")
    return _ESCAPED.sub(lambda match: _unescape(match[1]), text) if "\\" in text else text


def _unescape(code: str) -> str:
    named = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
    return named[code] if code in named else chr(int(code[1:], 16))


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

"""Where a command writes: results to stdout, messages to stderr, JSON with null where a number is missing."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probe.cli.failure import ReaderGone

WIDTH = 120  # columns when stdout is no terminal and COLUMNS is not set


def plain(value: Any) -> Any:
    """`value` as JSON knows it: no NaN, no infinity, no numpy scalars, paths as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value) if isinstance(value, Path) else None if value != value else str(value)


def records(frame: Any) -> list[dict[str, Any]]:
    """A data frame as a list of rows; missing cells are None."""
    return [
        {str(name): None if missing(cell) else plain(cell) for name, cell in zip(frame.columns, row, strict=True)}
        for row in frame.itertuples(index=False, name=None)
    ]


def missing(cell: Any) -> bool:
    """None, NaN, NaT and pandas.NA (whose comparison is neither true nor false)."""
    return cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and math.isnan(cell))


@contextmanager
def reader() -> Iterator[None]:
    """A reader of stdout that leaves early (`| head`) ends the program quietly; other broken pipes stay errors."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # so that the interpreter's own flush at exit does not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ReaderGone from None


def print_json(document: Mapping[str, Any]) -> None:
    with reader():
        print(json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False))


def print_lines(lines: list[str]) -> None:
    with reader():
        for line in lines:
            print(line)


def print_rich(*items: Any) -> None:
    """Tables, and lines as they are: no markup, no wrapping of a path in the middle."""
    console = stdout_console()
    with reader():
        for item in items:
            console.print(item, markup=False, highlight=False, soft_wrap=isinstance(item, str))


def stdout_console() -> Any:
    from rich.console import Console

    piped = not sys.stdout.isatty() and not os.environ.get("COLUMNS")
    return Console(width=WIDTH) if piped else Console()


def note(message: str, quiet: bool = False) -> None:
    """One line on stderr, for people."""
    if not quiet:
        print(message, file=sys.stderr, flush=True)

"""Tables that fit the terminal: columns have a priority, and those of lowest priority go until the
rest fits.

A row never wraps: what is still too long is shortened at its beginning (the end of a module path
tells layers apart).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from probe.formatting import visible
from probe.wording.columns import Column as Described
from probe.wording.columns import in_terminal
from probe.wording.columns.column import SHARED

GAP = 2  # blanks between columns
SHORTEST = 12  # a name is never cut below this
ELLIPSIS = "…"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column: its header, the text of a row's cell, and how soon it goes (0 stays to the
    end).
    """

    header: str
    text: Callable[[Row], str]
    rank: int = 0
    left: bool = False  # text, aligned left; numbers are aligned right


def columns_of(table: Sequence[Described], rows: Sequence[Row]) -> list[Column]:
    """The columns of a table of `probe.wording.columns` for these rows."""
    return [
        Column(column.header, column.text, rank, column.left)
        for column, rank in in_terminal(table, rows)
    ]


@dataclass(frozen=True)
class Grid:
    """Headers and cells that fit, ready to be drawn."""

    columns: tuple[Column, ...]
    cells: tuple[tuple[str, ...], ...]
    dropped: tuple[Column, ...]


def shorten(text: str, width: int) -> str:
    return text if len(text) <= width else ELLIPSIS + text[len(text) - width + 1 :]


def fit_columns(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Grid:
    """The columns that fit in `width` characters: lowest priority (highest rank) dropped first,
    then the first one shortened.
    """
    kept = list(columns)
    texts = {column.header: [visible(column.text(row)) for row in rows] for column in columns}

    def widths() -> dict[str, int]:
        return {c.header: max([len(c.header), *map(len, texts[c.header])]) for c in kept}

    def excess() -> int:
        return sum(widths().values()) + GAP * (len(kept) - 1) - width

    spare = max(
        widths()[kept[0].header] - 24, 0
    )  # a long name is shortened to 24 before a column has to go
    while excess() > spare and any(column.rank for column in kept):
        worst = max(column.rank for column in kept)
        kept.remove(next(column for column in reversed(kept) if column.rank == worst))
    first = kept[0].header
    if excess() > 0:
        limit = max(widths()[first] - excess(), SHORTEST)
        texts[first] = [shorten(text, limit) for text in texts[first]]
    cells = tuple(zip(*(texts[column.header] for column in kept), strict=True))
    dropped = tuple(column for column in columns if column not in kept)
    return Grid(tuple(kept), cells, dropped)


def no_room(grid: Grid, also: str = "") -> list[str]:
    """Which columns the terminal had no room for; not those that the lines below the table say.
    `also`: a file that holds them.
    """
    names = [column.header for column in grid.dropped if column.rank < SHARED]
    places = ", ".join(["a wider terminal", *([also] if also else [])])
    return [f"no room for: {', '.join(names)} ({places} or --json shows them)"] if names else []


def draw(grid: Grid, styles: Sequence[str] = ()) -> Any:
    """A rich table of the grid; `styles` has one style per row."""
    from rich.box import Box
    from rich.table import Table
    from rich.text import Text

    rule = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
    drawn = Table(
        box=rule,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        collapse_padding=True,
        header_style="bold",
    )
    for column in grid.columns:
        drawn.add_column(
            Text(column.header),
            justify="left" if column.left else "right",
            no_wrap=True,
            overflow="ellipsis",
        )
    for cells, style in zip_longest(grid.cells, styles[: len(grid.cells)], fillvalue=""):
        drawn.add_row(*(Text(cell) for cell in cells), style=style)
    return drawn

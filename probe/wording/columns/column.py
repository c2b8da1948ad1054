"""A column, described once: what the terminal, the page and the documentation say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from probe.formatting import missing, number
from probe.wording.phrases import Row

Rows = Sequence[Row]

SHARED = 10  # added to the priority of a column that says the same in every row


def text(value: Any) -> str:
    """A name as it is."""
    return "-" if missing(value) else str(value)


def always(_rows: Rows) -> bool:
    return True


def any_has(name: str) -> Callable[[Rows], bool]:
    """Does any row have a value there? What no row has needs no column."""
    return lambda rows: any(row.get(name) is not None for row in rows)


@dataclass(frozen=True)
class Column:
    """One column of a table of a run.

        Column("r2_ceiling", "R2 of the best element-wise curve there could be.", "R2",
               title="ceiling", format=r_squared, rank=3, page=True)

    A column of a file that neither the terminal nor the page shows needs the first three only.
    Adding a column is adding one of these to its table.
    """

    name: str  # the field in the file; a word of its own where `stored` is False
    meaning: str  # one sentence
    unit: str  # one of UNITS
    title: str = ""  # its header, in ASCII for the terminal; empty: the name, with blanks
    format: Callable[[Any], str] = text  # a value as a cell
    cell: Callable[[Row], str] | None = None  # a cell that needs more than the one value
    key: Callable[[Row], Any] | None = None  # what the page sorts by, where it is not the value
    left: bool = False  # aligned left, as text is; numbers are aligned right
    rank: int | None = None  # in the terminal the highest go first, 0 stays; None: not shown there
    page: bool = False  # shown on the page
    wanted: Callable[[Rows], bool] = always  # by the rows of the table at hand
    common: bool = False  # said beside the table where all rows share it, so it may go there
    stored: bool = True  # False: made for the screen from other columns
    values: str = ""  # what its values mean, where that is not said elsewhere on the page

    def text(self, row: Row) -> str:
        """The cell of a row."""
        return self.cell(row) if self.cell else self.format(row.get(self.name))

    def sort_key(self, row: Row) -> Any:
        return self.key(row) if self.key else row.get(self.name)

    @property
    def header(self) -> str:
        return self.title or self.name.replace("_", " ")

    @property
    def typeset(self) -> str:
        """The header where other letters than ASCII can be shown."""
        return self.header.replace("R2", "R\u00b2").replace("alpha", "\u03b1")

    @property
    def help(self) -> str:
        """The explanation on the page."""
        return f"{self.meaning} {self.values}".strip().replace("R2", "R\u00b2")

    def same_in(self, rows: Rows) -> bool:
        """Is it one of those that are said beside the table, as all its rows share it?"""
        return self.common and len({row[self.name] for row in rows}) == 1


def shown_column(
    name: str,
    meaning: str,
    unit: str,
    rank: int | None = 1,
    title: str = "",
    format: Callable[[Any], str] = number,
) -> Column:
    """A number shown in the terminal, by its rank, and on the page; where any row has it."""
    return Column(
        name,
        meaning,
        unit,
        title=title,
        format=format,
        rank=rank,
        page=True,
        wanted=any_has(name),
    )


def in_terminal(table: Sequence[Column], rows: Rows) -> list[tuple[Column, int]]:
    """The columns for these rows with their priorities; what all rows share goes first."""
    return [
        (column, column.rank + SHARED * column.same_in(rows))
        for column in table
        if column.rank is not None and column.wanted(rows)
    ]


def on_page(table: Sequence[Column], rows: Rows) -> list[Column]:
    """The columns for these rows; what all rows share is left out."""
    return [
        column
        for column in table
        if column.page and column.wanted(rows) and not column.same_in(rows)
    ]


UNITS = {
    "text": "a name",
    "bool": "true or false",
    "count": "a number of things",
    "share": "a part of 1; tables on the screen show per cent where the header says %",
    "R2": "share of variance explained: 1 is exact, under 0 is worse than the mean",
    "input": "the scale of the layer's input",
    "1/input": "one over the scale of the layer's input",
    "output": "the scale of the layer's output",
    "z": "the normalized value, before the layer's own affine; about one standard deviation",
    "ratio": "a number without a unit",
    "px": "pixels of the model's input",
    "patches": "steps on the grid of tokens",
    "nats": "entropy to the base e",
    "%": "per cent",
    "s": "seconds",
    "ms": "milliseconds",
    "sum": "a sum over elements, in the unit of what is summed",
}

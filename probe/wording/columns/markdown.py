"""docs/columns.md: statuses, units and the columns of every table, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from probe.records import Status
from probe.wording.columns import TABLES, UNITS, Column

HEAD = """# What the tables of a run say

Made by `python -m probe.wording.columns > docs/columns.md` from the descriptions that the terminal
and the report use. An empty cell in a file means that there is no such number."""


def page() -> str:
    """The whole page."""
    return "\n\n".join((HEAD, *_sections())) + "\n"


def _sections() -> Iterator[str]:
    yield "## Statuses of a layer"
    yield markdown(("status", "meaning"), ((status, status.meaning) for status in Status))
    yield "## Units"
    yield markdown(("unit", "meaning"), UNITS.items())
    for title, columns in TABLES.items():
        yield f"## {title}"
        yield table_of(columns)


def table_of(columns: Sequence[Column]) -> str:
    """One row per column; those that are made for the screen have no name in a file."""
    rows = [
        (
            f"`{column.name}`" if column.stored else "",
            column.header if column.rank is not None or column.page else "",
            column.unit,
            column.meaning,
        )
        for column in columns
    ]
    if not any(row[1] for row in rows):
        return markdown(("column", "unit", "meaning"), ((row[0], *row[2:]) for row in rows))
    return markdown(("column", "shown as", "unit", "meaning"), rows)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell is no border."""
    lines = [header, ["---"] * len(header), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)

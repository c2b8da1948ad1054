"""The tables of pages: alphas per layer, attention per layer, runs side by side, speed. Columns,
what they mean and how their cells read come from `probe.wording.columns`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from probe.html import Cell, Row, Table
from probe.html import Column as Head
from probe.wording.attention import per_layer
from probe.wording.columns import (
    ALPHAS,
    ATTENTION_LAYERS,
    SPEEDS,
    Column,
    key_number,
    on_page,
)
from probe.wording.phrases import Row as Values

NO_TARGETS: Mapping[str, str] = {}


def layer_table(name: str, rows: Sequence[Values], targets: Mapping[str, str]) -> Table:
    """One row per layer in execution order; `targets`: layer -> id of its S-curve. Columns that say
    nothing are left out, as are kind and channels where they are the same everywhere: the head of
    the page says them.
    """
    return described_table(name, "Normalization layers", ALPHAS, rows, targets)


def attention_table(name: str, heads: Sequence[Values]) -> Table:
    """One row per attention layer in execution order."""
    return described_table(name, "Attention layers", ATTENTION_LAYERS, per_layer(heads))


def speed_table(name: str, rows: Sequence[Values]) -> Table:
    """One row per kind of forward pass, before and after a change of the network."""
    return described_table(name, "Forward passes", SPEEDS, rows, noun="rows", controls=False)


def described_table(
    name: str,
    caption: str,
    table: Sequence[Column],
    rows: Sequence[Values],
    targets: Mapping[str, str] = NO_TARGETS,
    noun: str = "layers",
    controls: bool = True,
) -> Table:
    """The rows with the columns that are shown on pages; `noun`: what a row is one of; controls:
    can it be sorted and filtered by name?
    """
    columns = on_page(table, rows)
    return Table(
        name,
        caption,
        tuple(_head(column, _link(targets, rows)) for column in columns),
        tuple(
            Row(
                tuple(_cell(column, row, targets) for column in columns), str(row.get("status", ""))
            )
            for row in rows
        ),
        noun,
        controls,
    )


def _link(targets: Mapping[str, str], rows: Sequence[Values]) -> str:
    """Where the names of layers lead."""
    if not targets:
        return ""
    where = ", where it is shown" if len(targets) < len(rows) else ""
    return f" It leads to the S-curve of the layer{where}."


def _head(column: Column, link: str) -> Head:
    """The header with the explanation that stands below the table."""
    leads = link if column.name == "layer" else ""
    return Head(column.typeset, column.help + leads, number=not column.left)


def _cell(column: Column, row: Values, targets: Mapping[str, str]) -> Cell:
    text, key = column.text(row), column.sort_key(row)
    if column.name == "status":
        return Cell(text.replace("_", " "), key, status=text)
    return Cell(text, key, targets.get(text, "") if column.name == "layer" else "")


def comparison_table(titles: Sequence[str], numbers: Sequence[Mapping[str, Any]]) -> Table:
    """The key numbers turned round: a row for each number, a column for each run; a dash where a
    run has none.
    """
    names = dict.fromkeys(name for row in numbers for name in row)
    rows = [
        Row(
            (
                Cell(name.replace("_", " ")),
                *(Cell(key_number(name, row.get(name))) for row in numbers),
            )
        )
        for name in names
    ]
    heads = (Head("", number=False), *(Head(title) for title in titles))
    return Table("runs", "Key numbers of the runs", heads, tuple(rows))

"""Pieces of sentences that several findings are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]  # of a table, as plain values (`probe.formatting.records`)


class Finding(NamedTuple):
    """What was found, in one or more sentences, under the word that a reader looks for."""

    topic: str
    text: str


def plural(count: int, noun: str) -> str:
    """`1 layer`, `3 layers`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def are(count: int) -> str:
    """The verb for so many."""
    return "is" if count == 1 else "are"


def listed(items: Sequence[str], most: int, noun: str = "") -> str:
    """`a, b and 3 more`: at most `most` of the items by name."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return f"{', '.join(items[:most])}{more}{f' {noun}' if more and noun else ''}"


def sentences(lines: Iterable[str]) -> str:
    """Lines as they stand below a table, as the sentences of one text."""
    return " ".join(f"{line[:1].upper()}{line[1:].rstrip('.')}." for line in lines if line)


def values_of(rows: Sequence[Row], name: str) -> list[Any]:
    """The values of a column where there are any."""
    return [row[name] for row in rows if row.get(name) is not None]


def rows_with(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows that have a value in that column."""
    return [row for row in rows if row.get(name) is not None]

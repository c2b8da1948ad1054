"""Two runs side by side: one line per key number, one column per run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probe.cli.terminal import print_json, print_table
from probe.cli.views.grid import Column, Row
from probe.wording.columns import key_number


def show(rows: Sequence[Row], runs: Sequence[str], out: str | None, as_json: bool) -> None:
    """`rows`: the key numbers of each run; `runs`: as the user named them."""
    if as_json:
        print_json({"runs": runs, "out": out, "rows": rows})
        return
    columns = [Column("", lambda line: line["title"], left=True)]
    columns += [_column(str(row["run"]), str(n)) for n, row in enumerate(rows)]
    place = f"table and figure: {out}" if out else "--out DIR writes this table and a figure"
    print_table(columns, turned(rows), [place])


def turned(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for each number, with the text of run `n` under its place."""
    return [
        {
            "title": name.replace("_", " "),
            **{str(n): key_number(name, row[name]) for n, row in enumerate(rows)},
        }
        for name in rows[0]
        if name != "run"
    ]


def _column(run: str, place: str) -> Column:
    return Column(run, lambda line: line[place])

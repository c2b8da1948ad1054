"""The result of a run for people: one row per layer, then what to know about them in a few
lines.
"""

from __future__ import annotations

from collections.abc import Sequence

from probe.cli.views.grid import Column, Grid, Row
from probe.formatting import number, quality, share
from probe.wording.layers import (
    best,
    central_slope,
    counts,
    gain,
    interval,
    massive,
    shaped,
    shown_r2,
    slopes,
    why_none,
)

STYLES = {
    "curved": "bold",
    "step": "bold",
    "not_finite": "red",
    "not_called": "dim",
    "constant": "dim",
    "too_few": "dim",
}
SHARED = 10  # rank of a column that is the same in all rows


def layer_columns(rows: Sequence[Row]) -> list[Column]:
    """The columns of the table for these rows.

    alpha only where a layer has one, the fan of slopes only where a layer is affine, and no curves
    where all layers are.
    """

    def has(name: str) -> bool:
        return any(row.get(name) is not None for row in rows)

    def same(name: str) -> bool:
        return len({row[name] for row in rows}) == 1

    curves = any(row["status"] != "affine" for row in rows)
    line = "R2 line" if curves else "R2 one line"
    columns = {
        Column("layer", lambda row: str(row["layer"]), left=True): True,
        # what all layers share is said below the table as well, so it goes first
        Column(
            "kind", lambda row: str(row["kind"]), rank=SHARED + 1 if same("kind") else 7, left=True
        ): True,
        Column("C", lambda row: str(row["channels"]), rank=SHARED if same("channels") else 6): True,
        Column("status", lambda row: str(row["status"]), left=True): True,
        Column("alpha [95 %]", interval, rank=1, left=True): has("alpha"),
        Column("slope", lambda row: number(central_slope(row))): True,
        Column("slopes", slopes, rank=1): has("slope_min"),
        Column("R2", lambda row: quality(shown_r2(row))): curves and has("r2"),
        Column(line, lambda row: quality(row.get("linear_r2")), rank=2): has("linear_r2"),
        Column("ceiling", lambda row: quality(row.get("r2_ceiling")), rank=3): has("r2_ceiling"),
        Column("best", best, rank=9, left=True): curves,
        Column("1/std", lambda row: number(row.get("inverse_std")), rank=4): True,
        Column("beyond %", lambda row: share(row.get("beyond_linear")), rank=8): has(
            "beyond_linear"
        ),
        Column("max |x|", lambda row: number(row.get("max_abs_input")), rank=5): True,
    }
    return [column for column, wanted in columns.items() if wanted]


def where_s(rows: Sequence[Row], most: int = 6) -> str:
    """Which layers are S-shaped, the most bent first with its gain over a line."""
    bent = sorted(shaped(rows), key=gain, reverse=True)
    if not bent:
        return f"S-shaped: none ({why_none(rows)})"
    names = ", ".join(f"{row['layer']} {gain(row):+.2g}" for row in bent[:most])
    more = f" and {len(bent) - most} more" if len(bent) > most else ""
    return f"S-shaped: {len(bent)} of {len(rows)}; R2 above that of a line: {names}{more}"


def notes(rows: Sequence[Row]) -> list[str]:
    """Counts, where the S is, and what asks for attention."""
    lines = [counts(rows), where_s(rows)]
    if named := massive(rows):
        lines.append(f"massive activations: {named}")
    return lines


def styles(rows: Sequence[Row]) -> list[str]:
    return [STYLES.get(str(row["status"]), "") for row in rows]


def left_out(grid: Grid) -> list[str]:
    """Which columns the terminal had no room for, except those that the counts below the table
    say.
    """
    names = [column.header for column in grid.dropped if column.rank < SHARED]
    return (
        [f"no room for: {', '.join(names)} (a wider terminal, alpha.csv or --json shows them)"]
        if names
        else []
    )

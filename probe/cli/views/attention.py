"""How far the attention heads of a model look, for people: one row per layer, then what to know
about them in a few lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probe.cli.views.grid import Column, Grid, Row
from probe.formatting import number, records, share
from probe.wording.attention import count, known, not_read, was_read


def columns(rows: Sequence[Row]) -> list[Column]:
    """The columns for these rows of layers; what no row has is left out."""

    def has(name: str) -> bool:
        return any(row.get(name) is not None for row in rows)

    pixels = has("distance_px")
    found = {
        Column("layer", lambda row: str(row["layer"]), left=True): True,
        Column("run", lambda row: str(row["run"]), rank=1, left=True): has("run"),
        Column("heads", lambda row: str(row["heads"])): True,
        Column("distance px", lambda row: number(row["distance_px"])): pixels,
        Column(
            "min .. max", lambda row: f"{number(row['low'])} .. {number(row['high'])}", rank=1
        ): pixels,
        Column(
            "patches", lambda row: number(row["distance_patches"]), rank=5 if pixels else 0
        ): True,
        Column("uniform px", lambda row: number(row["uniform_px"])): pixels,
        Column("local", lambda row: "-" if row["local"] is None else str(row["local"])): pixels,
        Column("prefix %", lambda row: share(row["prefix_mass"]), rank=2): any(
            row.get("prefix_mass") for row in rows
        ),
        Column("entropy", lambda row: number(row["entropy"]), rank=3): True,
        Column("grid", lambda row: str(row["grid"]), rank=4, left=True): True,
        Column("stride px", lambda row: number(row["token_stride"]), rank=6): has("token_stride"),
        Column("windows", lambda row: str(row["windows"]), rank=4): any(
            (row.get("windows") or 1) > 1 for row in rows
        ),
    }
    return [column for column, wanted in found.items() if wanted]


def left_out(grid: Grid) -> list[str]:
    """Which columns the terminal had no room for."""
    names = [column.header for column in grid.dropped]
    return (
        [f"no room for: {', '.join(names)} (a wider terminal or --json shows them)"]
        if names
        else []
    )


def of_run(run: Any) -> list[str]:
    """What the result of a whole run says of attention: a line with the range of distances, and
    what could not be read.
    """
    record = run.manifest.get("attention")
    if not was_read(record):
        return not_read(record)
    heads = records(run.attention())
    pixels = known(heads, "distance_px")
    reach = f", distance {number(min(pixels))} to {number(max(pixels))} px" if pixels else ""
    return [f"attention: {count(heads)}{reach}", *not_read(record)]


def document(run: Any) -> dict[str, Any] | None:
    """The JSON form: what the manifest says, and all heads."""
    record = run.manifest.get("attention")
    return (
        {**record, "table": records(run.attention()) if was_read(record) else []}
        if record
        else None
    )

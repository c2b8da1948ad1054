"""What an evaluation tells people: a row per checkpoint."""

from __future__ import annotations

from typing import Any

from probe.cli.terminal import print_json, print_table
from probe.cli.views.grid import Column
from probe.formatting import number, records, thousands


def columns() -> list[Column]:
    return [
        Column("model", lambda row: str(row["model"]), left=True),
        Column("weights", lambda row: str(row["weights"]), left=True),
        Column("top-1 %", lambda row: _percent(row["top1"])),
        Column("top-5 %", lambda row: _percent(row["top5"])),
        Column("loss", lambda row: number(row["loss"], 4)),
        Column("images", lambda row: thousands(row["images"]), rank=1),
        Column("images/s", lambda row: number(row["images_per_second"]), rank=2),
    ]


def _percent(value: Any) -> str:
    """Two decimals: an image in ten thousand counts."""
    return "-" if value is None else f"{value:.2f}"


def show(table: Any, data: str, as_json: bool) -> None:
    rows = records(table)
    if as_json:
        print_json({"data": data, "rows": rows})
        return
    skipped = sum(row["skipped"] for row in rows)
    lines = [f"data: {data}"]
    if skipped:
        lines.append(f"{skipped} images could not be read and do not count")
    random = [row for row in rows if row["weights"] == "random"]
    if random:
        lines.append("random weights: nothing was learned")
    print_table(columns(), rows, lines)

"""Whether the tokens of attention layers stand where their grid says, one row per layer."""

from __future__ import annotations

from typing import Any

from probe.cli.terminal import print_json, print_table
from probe.cli.views.grid import Column
from probe.formatting import number, records


def show_agreement(table: Any, as_json: bool) -> None:
    """The table of check_attention_grid."""
    rows = records(table)
    if as_json:
        print_json({"layers": rows})
        return
    columns = [
        Column("layer", lambda row: str(row["layer"]), left=True),
        Column("grid", lambda row: str(row["grid"]), left=True),
        Column("stride px", lambda row: number(row["token_stride"])),
        Column("patches", lambda row: f"{row['agreeing']} of {row['patches']}"),
        Column("largest offset", lambda row: number(row["largest_offset"]), rank=1),
        Column("agrees", lambda row: "yes" if row["agrees"] else "NO", left=True),
    ]
    wrong = [row["layer"] for row in rows if not row["agrees"]]
    line = f"{len(rows) - len(wrong)} of {len(rows)} layers change first where the image changed"
    print_table(columns, rows, [line])

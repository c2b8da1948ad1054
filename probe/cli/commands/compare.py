"""`probe-norms compare RUN RUN`: the layers of two runs beside each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from probe.cli import options as opt
from probe.cli.views.grid import Column, Row
from probe.formatting import number

First = Annotated[
    str, typer.Argument(metavar="RUN", show_default=False, help="Directory of a finished run.")
]
Second = Annotated[
    str, typer.Argument(metavar="RUN", show_default=False, help="The run to set beside it.")
]
Folder = Annotated[
    str | None,
    opt.text_option(
        "--out", "DIR", "Directory for the table and the figure.  [default: none is written]"
    ),
]


def compare(run_a: First, run_b: Second, out: Folder = None, json: opt.Json = False) -> None:
    """Set two runs side by side.

    For example the LayerNorms of a ViT and the BatchNorms of a ResNet.
    """
    from probe.cli.terminal import print_json
    from probe.formatting import records
    from probe.jobs.drawing.compare import compare as job
    from probe.store.run import open_run

    rows = records(job(open_run(run_a), open_run(run_b), out=out))
    if json:
        print_json({"runs": [run_a, run_b], "out": out, "rows": rows})
    else:
        show(rows, [run_a, run_b], out)


def show(rows: list[dict[str, Any]], runs: list[str], out: str | None) -> None:
    """The comparison turned round: one line per number, one column per run."""
    from probe.cli.terminal import print_table

    turned = [
        {"number": name.replace("_", " "), **{str(n): row[name] for n, row in enumerate(rows)}}
        for name in rows[0]
        if name != "run"
    ]
    columns = [Column("", lambda row: str(row["number"]), left=True)]
    columns += [Column(run, cell(str(n))) for n, run in enumerate(runs)]
    print_table(
        columns,
        turned,
        lambda grid: [
            f"table and figure: {out}" if out else "--out DIR writes this table and a figure"
        ],
    )


def cell(name: str) -> Callable[[Row], str]:
    """The text of a cell: short numbers, names as they are."""
    return lambda row: (
        number(row[name]) if isinstance(row[name], float) or row[name] is None else str(row[name])
    )

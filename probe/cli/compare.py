"""`probe-norms compare RUN RUN`: the layers of two runs beside each other."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from probe.cli import options as opt

First = Annotated[str, typer.Argument(metavar="RUN", show_default=False, help="Directory of a finished run.")]
Second = Annotated[str, typer.Argument(metavar="RUN", show_default=False, help="The run to set beside it.")]
Folder = Annotated[
    str | None, opt.text_option("--out", "DIR", "Directory for the table and the figure.  [default: none is written]")
]


def compare(run_a: First, run_b: Second, out: Folder = None, json: opt.Json = False) -> None:
    """Set two runs side by side.

    For example the LayerNorms of a ViT and the BatchNorms of a ResNet.
    """
    from probe.cli.output import print_json
    from probe.cli.values import records
    from probe.pipeline.compare_runs import compare as job
    from probe.store.run import open_run

    frame = job(open_run(run_a), open_run(run_b), out=out)
    rows = records(frame)
    if json:
        print_json({"runs": [run_a, run_b], "out": out, "rows": rows})
    else:
        show(rows, [str(name) for name in frame.columns], out)


def show(rows: list[dict[str, Any]], names: list[str], out: str | None) -> None:
    """The comparison as it comes; columns from the right go first where the terminal is narrow."""
    from probe.cli.layer_table import left_out
    from probe.cli.output import print_table
    from probe.cli.tables import plain_columns

    lines = [f"written: {out}"] if out else []
    print_table(plain_columns(names), rows, lambda grid: left_out(grid) + lines)

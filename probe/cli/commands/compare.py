"""`probe-norms compare RUN RUN`: the layers of two runs beside each other."""

from __future__ import annotations

from typing import Annotated

import typer

from probe.cli import options as opt

First = Annotated[
    str,
    typer.Argument(
        metavar="RUN", show_default=False, help="Directory or address of a finished run."
    ),
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
    from probe.cli.views.compare import show
    from probe.formatting import records
    from probe.jobs.drawing.compare import compare as job
    from probe.store.run import open_run

    rows = records(job(open_run(run_a), open_run(run_b), out=out))
    show(rows, [run_a, run_b], out, json)

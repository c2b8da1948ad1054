"""`probe-norms export RUN --to FILE`: the alphas as a table, or as weights of ready-made DyT
layers.
"""

from __future__ import annotations

from typing import Annotated

import typer

from probe.cli import options as opt
from probe.errors import shown

Target = Annotated[
    str,
    opt.text_option(
        "--to", "FILE", "FILE ending in .csv, .json or .safetensors.", show_default=False
    ),
]
Scope = Annotated[
    str,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        parser=opt.one_of("--scope", ("channel", "layer")),
        help="For .safetensors: gamma and beta per channel, or one of each per layer (channel, "
        "layer).",
    ),
]


def export(run: opt.Run, to: Target, scope: Scope = "channel", json: opt.Json = False) -> None:
    """Write the alphas of a run to a file.

    A table (.csv, .json), or alpha, weight and bias of a DyT layer in place of each normalization
    layer (.safetensors). Fits first if the run has no fits yet.
    """
    from probe.cli.terminal import print_json, print_lines
    from probe.jobs.replacing.export import export_alphas

    path = export_alphas(run, to, scope=scope)
    if json:
        print_json({"run": run, "file": shown(path), "scope": scope})
    else:
        print_lines([shown(path)])

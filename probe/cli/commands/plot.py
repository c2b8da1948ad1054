"""`probe-norms plot RUN`: draw the figures of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from probe.cli import options as opt
from probe.cli.folders import holds_comparison, holds_training
from probe.errors import UsageError, shown

Kinds = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="NAMES",
        parser=opt.listed("--kind"),
        help="Figures to draw, with commas between.  [default: all]",
    ),
]
Chosen = Annotated[
    str | None,
    opt.text_option(
        "--layers",
        "GLOBS",
        "Layers to draw, by name, with commas between, e.g. 'blocks.*.norm1,norm'.  [default: all]",
    ),
]
Folder = Annotated[
    str | None, opt.text_option("--out", "DIR", "Directory of the figures.  [default: RUN/figures]")
]


def plot(
    run: opt.Run,
    kind: Kinds = None,
    layers: Chosen = None,
    format: opt.Formats = "png,svg",
    out: Folder = None,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """Draw the figures of a run, training, tracking or comparison; the model is not needed."""
    from probe.cli.progress import progress_bar
    from probe.cli.terminal import print_json, print_lines

    drawing: dict[str, Any] = {
        "kinds": list(kind) if kind else None,
        "layers": layers,
        "formats": tuple(format),
        "out": out,
    }
    with progress_bar(quiet, "figures", run) as progress:
        if holds_comparison(run):
            paths = of_comparison(run, progress, **drawing)
        elif holds_training(run):
            from probe.training.reporting.folders import plot_folder

            paths = plot_folder(run, progress=progress, **drawing)
        else:
            from probe.jobs.drawing.draw import plot as job
            from probe.store.run import open_run

            paths = job(open_run(run), progress=progress, **drawing)
    if json:
        print_json({"run": run, "figures": [shown(path) for path in paths]})
    else:
        print_lines([shown(path) for path in paths])


def of_comparison(folder: str, progress: Any, layers: str | None, **drawing: Any) -> list[Any]:
    """Figures of a comparison."""
    from probe.training.comparing.page import plot_comparison

    if layers is not None:
        raise UsageError(
            f"--layers {layers} with {folder}: figures of a comparison choose their layers; leave "
            "it out"
        )
    return plot_comparison(Path(folder).expanduser(), progress=progress, **drawing)

"""`probe-norms fit RUN`: fit the curves again, from what the run keeps."""

from __future__ import annotations

from typing import Annotated

import typer

from probe.cli import options as opt

Families = Annotated[
    str | None,
    typer.Option(
        "--families",
        metavar="NAMES",
        parser=opt.listed("--families"),
        help="Curves to fit besides those that the run was fitted with, with commas between, e.g. "
        "linear,tanh,erf.  [default: all]",
    ),
]


Out = Annotated[
    str | None,
    opt.text_option(
        "--out",
        "DIR",
        "Directory or address of a copy of the run that holds the fits, where RUN cannot be "
        "written.  [default: RUN]",
    ),
]


def fit(
    run: opt.Run,
    families: Families = None,
    out: Out = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """Fit the curves to a run again; the model is not needed."""
    from probe.cli.progress import progress_bar
    from probe.cli.views.run import show_fits

    with progress_bar(quiet, "fit", run) as progress:
        from probe.jobs.fitting.fit import fit as job
        from probe.store.run import open_run

        fits = job(
            open_run(run),
            families=list(families) if families else None,
            save=True,
            progress=progress,
            out=out,
            overwrite=overwrite,
        )
        fitted = open_run(out or run)
    show_fits(fitted, fits, json)

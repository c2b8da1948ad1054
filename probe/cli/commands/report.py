"""`probe-norms report RUN [RUN ...]`: a page that shows a run, or several side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from probe.cli import options as opt

Runs = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", show_default=False, help="Directories of finished runs."),
]
File = Annotated[
    str | None,
    opt.text_option(
        "--out", "FILE", "One page of all runs, as this file.  [default: report.html in each run]"
    ),
]


def report(runs: Runs, out: File = None, quiet: opt.Quiet = False, json: opt.Json = False) -> None:
    """Write a page that shows what was found in a run: report.html.

    One file that opens in any browser and loads nothing from elsewhere; the model is not needed.
    With --out, one page of several runs, which begins with their comparison. Fits first if the run
    has no fits yet.
    """
    from probe.cli.progress import progress_bar
    from probe.cli.terminal import print_json, print_lines

    with progress_bar(quiet, "report", ", ".join(runs)) as progress:
        from probe.jobs.reporting.report import report as job
        from probe.store.run import open_run

        paths = job([open_run(run) for run in dict.fromkeys(runs)], out=out, progress=progress)
    if json:
        print_json({"runs": runs, "reports": [str(path) for path in paths]})
    else:
        print_lines([str(path) for path in paths])

"""`probe-norms report RUN [RUN ...]`: a page that shows a run, several side by side, a training, a
tracking or a comparison.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from probe.cli import options as opt
from probe.cli.folders import holds_comparison, holds_training
from probe.errors import UsageError, shown

Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        show_default=False,
        help="Directories of finished runs, or of trainings, trackings and comparisons.",
    ),
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
    has no fits yet. Trainings, trackings and comparisons have a page of their own.
    """
    from probe.cli.progress import progress_bar
    from probe.cli.terminal import print_json, print_lines

    every = list(dict.fromkeys(runs))
    plain = [run for run in every if not holds_training(run)]
    others = [run for run in every if run not in plain]
    if others and out is not None:
        raise UsageError(f"--out {out} with {others[0]}, whose page lies in it: leave --out out")
    with progress_bar(quiet, "report", ", ".join(runs)) as progress:
        paths = of_runs(plain, out, progress) if plain or not others else []
        paths += [of_folder(folder, progress) for folder in others]
    if json:
        print_json({"runs": runs, "reports": [shown(path) for path in paths]})
    else:
        print_lines([shown(path) for path in paths])


def of_runs(runs: list[str], out: str | None, progress: Any) -> list[Any]:
    """Pages of runs."""
    from probe.jobs.reporting.report import report as job
    from probe.store.run import open_run

    return list(job([open_run(run) for run in runs], out=out, progress=progress))


def of_folder(folder: str, progress: Any) -> Any:
    """The page of a training, a tracking or a comparison."""
    if holds_comparison(folder):
        from probe.training.comparing.page import write_results

        return write_results(Path(folder).expanduser(), progress=progress)
    from probe.training.reporting.folders import report_folder

    return report_folder(folder, progress=progress)

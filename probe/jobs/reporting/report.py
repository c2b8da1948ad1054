"""Writes report.html of a finished run, or one page of several: tables, sentences and pictures,
without the model.

Same run, same bytes: nothing is taken from the clock, and the times of the manifest stay in the
manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from probe.errors import UsageError
from probe.html import Page, render
from probe.jobs.fitting.fit import ensure_fitted
from probe.jobs.reporting.comparison import comparison
from probe.jobs.reporting.run_part import ReportedRun
from probe.jobs.sharing import second_process
from probe.records import Progress, silent
from probe.store.outputs import output_file
from probe.store.results import step_into
from probe.store.run import Run, open_run, run_names

NAME = "report.html"


def report(
    runs: Run | str | Path | Sequence[Run | str | Path],
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Writes `report.html` into each run, or with `out` one page of all of them to that file.
    Returns the paths.

    A run without fits is fitted first. progress: called as progress("report", done, total, what is
    drawn next).
    """
    opened = [open_run(run) for run in ([runs] if isinstance(runs, (Run, str, Path)) else runs)]
    if not opened:
        raise UsageError("no run given; give the folder of at least one finished run")
    with second_process(__name__):
        if out is None:
            return [write_report(run, progress=progress) for run in opened]
        return [_joint_report(opened, output_file(out, NAME), progress)]


def write_report(
    run: Run, figures: bool = True, drawn: Iterable[Path] = (), progress: Progress | None = None
) -> Path:
    """Writes the report into `run`. `figures`: False leaves out all pictures; `drawn`: PNGs that
    were just drawn from its tables.
    """
    _ensure_fitted(run, progress)
    by_kind = {path.stem: path for path in drawn if path.suffix == ".png"}
    with run.results("give --out FILE") as results:
        reported = ReportedRun(run, "run", by_kind, progress or silent, figures=figures)
        page = Page(reported.title, (reported.part(),))
        return results.put(run.path / NAME, render(page).encode())


def _joint_report(runs: Sequence[Run], target: Path, progress: Progress | None) -> Path:
    """One page of all runs."""
    for run in runs:
        _ensure_fitted(run, progress)
    with step_into(target, [run.path for run in runs]) as step:
        return step.put(target, _page(runs, progress or silent).encode())


def _ensure_fitted(run: Run, progress: Progress | None) -> None:
    if not run.attention_only:
        ensure_fitted(run, progress)


def _page(runs: Sequence[Run], progress: Progress) -> str:
    """One run as its own page, several with a comparison before them."""
    titles = run_names(runs) if len(runs) > 1 else [""]
    reported = [
        ReportedRun(run, f"run{n}", {}, progress, title)
        for n, (run, title) in enumerate(zip(runs, titles, strict=True), start=1)
    ]
    parts = tuple(one.part() for one in reported)
    if len(parts) == 1:
        return render(Page(reported[0].title, parts))
    return render(Page(", ".join(titles), parts, comparison(runs, titles)))


__all__ = ["report", "write_report"]

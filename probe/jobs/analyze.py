"""The whole job of the command line: capture, fit, export, draw, report."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from probe.jobs.capturing.capture import capture
from probe.jobs.fitting.fit import fit
from probe.jobs.replacing.export import export_alphas
from probe.models.loading.load import Model
from probe.records import Progress
from probe.store import Run, open_run
from probe.store.outputs import is_run
from probe.store.replacement import whole_run


def analyze(
    model: str | Model | nn.Module,
    data: Any = None,
    *,
    out: str | os.PathLike[str],
    attention: bool = True,
    figures: bool = True,
    report: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> Run:
    """Capture `model` on `data` into the run `out`, fit its curves, write the alphas, draw the
    figures and the page that shows them. Returns the run.

    options: those of `capture`, and as there `num_images=None` takes all images (the command line's
    default is 128).
    attention: False leaves out how far the attention heads look; a model without attention needs
    nothing.
    figures: False draws none, and the page has none then. report: False writes no report.html.
    progress: called as progress(stage, done, total, message); stages capture, store, fit, figures,
    report. What is finished stays on disk if a later step fails; with `overwrite` an old run at
    `out` stays until the new one has everything.
    """
    jobs = partial(_jobs, model, data, attention, figures, report, progress)
    if not (options.get("overwrite") and is_run(out)):
        return jobs(out=out, **options)
    with whole_run(out, overwrite=True) as place:
        jobs(out=place, **options)
    return open_run(out)


def _jobs(
    model: str | Model | nn.Module,
    data: Any,
    attention: bool,
    figures: bool,
    report: bool,
    progress: Progress | None,
    *,
    out: str | os.PathLike[str],
    **options: Any,
) -> Run:
    run = capture(model, data, out=out, attention=attention, progress=progress, **options)
    fit(run, progress=progress)
    export_alphas(run, run.path / "alpha.safetensors")
    drawn: list[Path] = []
    if figures:
        # matplotlib and seaborn take their time, which then runs under the progress bar
        from probe.jobs.drawing.draw import plot

        drawn = plot(run, progress=progress)
    if report:
        from probe.jobs.reporting.report import write_report

        write_report(run, figures=figures, drawn=drawn, progress=progress)
    return run

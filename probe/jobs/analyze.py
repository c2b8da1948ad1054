"""The whole job of the command line: capture, fit, export, draw, report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from probe.errors import known_names
from probe.jobs.capturing.capture import capture
from probe.jobs.capturing.resume import begun
from probe.jobs.fitting.fit import fit
from probe.jobs.replacing.export import export_alphas
from probe.jobs.sharing import second_process
from probe.models.loading.load import Model
from probe.records import FIGURE_FORMATS, Progress
from probe.store import Run, open_run
from probe.store.checkpoint import Checkpoint
from probe.store.listing import FITTED
from probe.store.sound import are_sound

SHARED = (  # what the second process imports
    "probe.jobs.fitting.fit",
    "probe.jobs.drawing.draw",
    "probe.jobs.reporting.report",
)


def analyze(
    model: str | Model | nn.Module,
    data: Any = None,
    *,
    out: str | os.PathLike[str],
    attention: bool = True,
    figures: bool = True,
    formats: Sequence[str] = ("png",),
    report: bool = True,
    resume: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Run:
    """Capture `model` on `data` into the run `out`, fit its curves, write the alphas, draw the
    figures and the page that shows them. Returns the run.

    options: those of `capture`, and as there `num_images=None` takes all images (the command line's
    default is 128).
    attention: False leaves out how far the attention heads look; a model without attention needs
    nothing.
    figures: False draws none, and the page has none then. formats: of their files, png, svg, pdf;
    `plot` draws others later. report: False writes no report.html.
    resume: as `capture` takes it; and of a job that was interrupted later, what is there and sound
    is not made again. Without it the same job goes on too, with a warning.
    progress: called as progress(stage, done, total, message); stages capture, store, fit, figures,
    report. What is finished stays on disk if a later step fails; with `overwrite` an old run at
    `out` stays until the new one has everything.
    """
    endings = known_names("format", formats, FIGURE_FORMATS) if figures else []
    with (
        second_process(*SHARED),  # it starts while the model runs
        begun(out, resume, bool(options.pop("overwrite", False)), whole=True) as job,
    ):
        run = capture(
            model, data, out=job, attention=attention, resume=resume, progress=progress, **options
        )
        with _kept(job.checkpoint):
            _go_on(run, job.finished is not None, endings, report, progress)
            job.checkpoint.publish()
    return open_run(out)


@contextmanager
def _kept(checkpoint: Checkpoint) -> Iterator[None]:
    """An error says that the capture need not be made again."""
    try:
        yield
    except BaseException as error:
        if checkpoint.exists():
            error.add_note("the capture is complete: --resume (resume=True) goes on after it")
        raise


def _go_on(
    run: Run, interrupted: bool, formats: Sequence[str], report: bool, progress: Progress | None
) -> None:
    """What comes after the capture; of an interrupted job what is missing.

    formats: of the figures; where there is none, no figure is drawn.
    """

    def there(*names: str) -> bool:
        return interrupted and are_sound(run.path, names)

    if not there(*FITTED, "alpha.json"):
        fit(run, progress=progress)
    if not there("alpha.safetensors"):
        export_alphas(run, run.path / "alpha.safetensors")
    drawn: list[Path] = []
    anew = False
    if formats:
        # matplotlib takes its time, which then runs under the progress bar
        from probe.jobs.drawing.draw import plot, plot_missing

        drawn, anew = (
            plot_missing(run, formats, progress)
            if interrupted
            else (plot(run, formats=formats, progress=progress), True)
        )
    if report and (anew or not there("report.html")):
        from probe.jobs.reporting.report import write_report

        write_report(run, figures=bool(formats), drawn=drawn, progress=progress)

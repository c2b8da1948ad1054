"""The whole job of the command line: capture, fit, export, draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from probe.models.load import Model
from probe.pipeline.capture import capture
from probe.pipeline.export import export_alphas
from probe.pipeline.fit_run import fit
from probe.store import Run


def analyze(
    model: str | Model | nn.Module,
    data: Any = None,
    *,
    out: str,
    figures: bool = True,
    progress: Callable[..., None] | None = None,
    **options: Any,
) -> Run:
    """Capture `model` on `data` into the run `out`, fit its curves, write the alphas, draw the figures. Returns the run.

    Takes the options of `capture`. What is finished stays on disk if a later step fails.
    """
    run = capture(model, data, out=out, progress=progress, **options)
    fit(run, progress=progress)
    export_alphas(run, run.path / "alpha.safetensors")
    if figures:
        from probe.pipeline.draw import plot

        if progress:
            progress("figures", 0, None, "")
        plot(run)
    return run

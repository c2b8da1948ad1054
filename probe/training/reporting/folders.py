"""Pages and figures of a folder that is no run: a training, or a tracking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probe.errors import UsageError
from probe.layer_names import Patterns
from probe.records import Progress, silent
from probe.store.outputs import output_folder
from probe.store.step import Step
from probe.training.figure_files import USUAL, figure_files
from probe.training.folder import RECORD as TRAINING
from probe.training.reporting import figures as of_training
from probe.training.reporting.page import FIGURES, training_report, training_tables
from probe.training.tracking import figures as of_tracking
from probe.training.tracking.page import open_tracking, write_results
from probe.training.tracking.record import REPORT


def report_folder(folder: str | Path, progress: Progress | None = None) -> Path:
    """Draws the figures of a training or a tracking anew, and writes its report.html. Returns the
    page.
    """
    path = Path(folder).expanduser()
    if (path / TRAINING).is_file():
        return training_report(path, progress=progress)
    write_results(path, open_tracking(path).tracked, progress=progress)
    return path / REPORT


def plot_folder(
    folder: str | Path,
    kinds: Sequence[str] | None = None,
    layers: Patterns | None = None,
    formats: Sequence[str] = USUAL,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Writes the figures of a training or a tracking into `out` (default: its `figures/`). Returns
    their paths.

    layers: globs, of a tracking alone. Raises UsageError for an unknown name, ProbeError where a
    figure that was asked for by name has no data.
    """
    path = Path(folder).expanduser()
    drawing: dict[str, Any] = {
        "chosen": kinds,
        "formats": formats,
        "progress": progress or silent,
    }
    if (path / TRAINING).is_file():
        if layers is not None:
            raise UsageError(
                f"--layers {layers} with {folder}: figures of a training show all its layers; "
                "leave it out"
            )
        files = figure_files(of_training.KINDS, training_tables(path), **drawing)
    else:
        files = figure_files(of_tracking.KINDS, open_tracking(path, layers), **drawing)
    place = path / FIGURES if out is None else output_folder(out)
    with Step(place) as step:
        return [step.put(place / name, data) for name, data in files.items()]

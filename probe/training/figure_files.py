"""Figures of a training or a tracking as the contents of files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from matplotlib.figure import Figure

from probe.errors import ProbeError, known_names
from probe.jobs.drawing.tables import NothingToDraw
from probe.jobs.figure_file import picture
from probe.records import FIGURE_FORMATS, Progress, silent

T = TypeVar("T")
USUAL = ("png", "svg")


def figure_files(
    kinds: Mapping[str, Callable[[T], Figure]],
    tables: T,
    *,
    chosen: Sequence[str] | None = None,
    formats: Sequence[str] = USUAL,
    progress: Progress = silent,
) -> dict[str, bytes]:
    """File name -> content of the chosen figures; None: of all that there is data for.

    Raises UsageError for a name or format that is not known, ProbeError for a figure that was asked
    for by name and has no data.
    """
    endings = known_names("format", formats, FIGURE_FORMATS)
    files: dict[str, bytes] = {}
    names = known_names("figure", chosen, kinds)
    for done, name in enumerate(names):
        progress("figures", done, len(names), name)
        try:
            figure = kinds[name](tables)
        except NothingToDraw as reason:
            if chosen is not None:
                raise ProbeError(f"figure {name} cannot be drawn: {reason}") from None
            continue
        files |= {f"{name}.{ending}": picture(figure, ending) for ending in endings}
    progress("figures", len(names), len(names))
    return files

"""A figure as a file, or as the bytes of one.

Same figure, same bytes: SVG ids come from a fixed salt and no date is written.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from probe import plots
from probe.store.disk import replace_file

FORMATS = ("png", "svg", "pdf")
_METADATA = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


Put = Callable[[Path, Any], Path]  # puts bytes at a path


def save(
    figure: Figure,
    stem: Path,
    formats: Sequence[str] = ("png", "svg"),
    put: Put = replace_file,
) -> list[Path]:
    """Writes `stem`.png, .svg, ... each in one step; `put`: that of the results of a run."""
    return [
        put(stem.with_name(f"{stem.name}.{ending}"), picture(figure, ending)) for ending in formats
    ]


def picture(figure: Figure, ending: str = "png") -> bytes:
    """The content of a file in the format `ending`."""
    buffer = io.BytesIO()
    with plots.theme():
        figure.savefig(buffer, format=ending, metadata=_METADATA.get(ending))
    return buffer.getvalue()

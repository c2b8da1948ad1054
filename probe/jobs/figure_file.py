"""A figure as a file, or as the bytes of one.

Same figure, same bytes: SVG ids come from a fixed salt and no date is written.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from probe import plots
from probe.plots.style import DPI

_METADATA = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
_EFFORT = 3  # of zlib: 4 % larger than its usual 6, in two thirds of the time

Put = Callable[[Path, Any], Path]  # puts bytes at a path


def save(
    figure: Figure,
    stem: Path,
    put: Put,
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Writes `stem`.png, .svg, ...; `put`: that of the step that they belong to."""
    return [
        put(stem.with_name(f"{stem.name}.{ending}"), picture(figure, ending)) for ending in formats
    ]


def pixels(figure: Figure) -> Image.Image:
    """What `picture` encodes as PNG: RGB, as no figure is transparent."""
    buffer = io.BytesIO()
    with plots.theme():
        figure.savefig(buffer, format="rgba", dpi=DPI)
        width, height = (int(inches * DPI) for inches in figure.get_size_inches())
    return Image.frombuffer("RGBA", (width, height), buffer.getvalue()).convert("RGB")


def picture(figure: Figure, ending: str = "png") -> bytes:
    """The content of a file in the format `ending`."""
    buffer = io.BytesIO()
    if ending == "png":
        pixels(figure).save(buffer, "PNG", compress_level=_EFFORT, dpi=(DPI, DPI))
        return buffer.getvalue()
    with plots.theme():
        figure.savefig(buffer, format=ending, metadata=_METADATA.get(ending))
    return buffer.getvalue()

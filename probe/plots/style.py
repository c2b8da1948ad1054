"""Sizes, colours and marks shared by all figures.

Widths are those of a two-column page (3.5 in and 7.16 in), text is never under 7 pt, colours are
those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which readers with any colour vision can
tell apart. The theme is seaborn's `ticks` in its context `paper`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl

from probe.records import Status

ONE_COLUMN = 3.5  # inches
TWO_COLUMN = 7.16
SMALL = 7.0  # points; nothing is smaller
TEXT = 8.0
DPI = 220

POINT = "#9dc3e0"
TAIL = "#4f86b5"
PREFIX = "#e69f00"
CURVE = "#c0390b"
PALE_CURVE = "#e3a28f"  # a curve that is not established
LINE = "#222222"
MUTED = "#6b6b6b"
FAINT = "#d9d9d9"
WARNING = "#b00020"
HIGHLIGHTS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DEPTH_MAP = "viridis"

FAMILY_COLOURS = {
    "linear": "#222222",
    "tanh": CURVE,
    "erf": "#0072b2",
    "isru": "#009e73",
    "arctan": "#cc79a7",
    "softsign": "#e69f00",
    "hardtanh": "#56b4e9",
    "tanh_shift": CURVE,
    "erf_shift": "#0072b2",
}
# A status without a colour or a mark of its own has those of `status_colour` and `status_marker`.
STATUS_COLOURS: dict[str, str] = {
    Status.CURVED: CURVE,
    Status.LINEAR: LINE,
    Status.AFFINE: "#00694b",
    Status.SUPERLINEAR: "#7b3294",
    Status.STEP: "#8a5a00",
    Status.MIXTURE: "#006a8e",
    Status.UNDETERMINED: MUTED,
}
STATUS_MARKERS: dict[str, str] = {
    Status.CURVED: "o",
    Status.LINEAR: "_",
    Status.AFFINE: "s",
    Status.SUPERLINEAR: "^",
    Status.STEP: "v",
    Status.MIXTURE: "d",
    Status.UNDETERMINED: "$?$",
}

# `axes_style("ticks") | plotting_context("paper")` of seaborn 0.13, as far as `_RC` says nothing
# else. Written out, because importing seaborn takes longer than matplotlib and pandas together.
_PAPER = 0.8  # of the sizes for a notebook
_SEABORN: dict[str, Any] = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": ".15",
    "axes.labelcolor": ".15",
    "axes.axisbelow": True,
    "axes.grid": False,
    "axes.spines.left": True,
    "axes.spines.bottom": True,
    "grid.color": ".8",
    "grid.linestyle": "-",
    "grid.linewidth": _PAPER * 1,
    "text.color": ".15",
    "font.sans-serif": [
        "Arial",
        "DejaVu Sans",
        "Liberation Sans",
        "Bitstream Vera Sans",
        "sans-serif",
    ],
    "legend.title_fontsize": _PAPER * 12,
    "lines.solid_capstyle": "round",
    "lines.markersize": _PAPER * 6,
    "patch.edgecolor": "w",
    "patch.force_edgecolor": True,
    "patch.linewidth": _PAPER * 1,
    "xtick.color": ".15",
    "xtick.direction": "out",
    "xtick.bottom": True,
    "xtick.top": False,
    "xtick.minor.width": _PAPER * 1,
    "xtick.minor.size": _PAPER * 4,
    "ytick.color": ".15",
    "ytick.direction": "out",
    "ytick.left": True,
    "ytick.right": False,
    "ytick.minor.width": _PAPER * 1,
    "ytick.minor.size": _PAPER * 4,
}
_RC: dict[str, Any] = {
    # comes with matplotlib, so a figure has the same bytes on every machine
    "font.family": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": TEXT,
    "axes.labelsize": TEXT,
    "axes.titlesize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.unicode_minus": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "axes.labelpad": 2.5,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "figure.dpi": 110,
    "savefig.dpi": DPI,
    "svg.hashsalt": "probe",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


@contextmanager
def theme() -> Iterator[None]:
    """The look of every figure, for the time of the `with` only; ticks are made while drawing, so
    saving needs it too.
    """
    look: dict[Any, Any] = {**_SEABORN, **_RC}
    with mpl.rc_context(look):
        yield


def status_colour(status: str) -> str:
    return STATUS_COLOURS.get(status, MUTED)


def status_marker(status: str) -> str:
    """Of matplotlib; a cross where there is no result."""
    return STATUS_MARKERS.get(status, "x")


def ramp(count: int, low: float = 0.0, high: float = 0.88) -> list[str]:
    """`count` colours from dark to light of the sequential map, without its palest end."""
    cmap = mpl.colormaps[DEPTH_MAP]
    return [
        mpl.colors.to_hex(cmap(low + (high - low) * i / max(count - 1, 1))) for i in range(count)
    ]


def mapped(value: float, norm: mpl.colors.Normalize) -> str:
    """Colour of a value on the sequential map."""
    return mpl.colors.to_hex(mpl.colormaps[DEPTH_MAP](float(norm(value))))

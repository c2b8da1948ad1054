"""Sizes, colours and number formats shared by all figures.

Widths are those of a two-column page (3.5 in and 7.16 in), text is never under 7 pt, colours are
those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which readers with any colour vision can
tell apart. The theme is seaborn's `ticks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

ONE_COLUMN = 3.5  # inches
TWO_COLUMN = 7.16
SMALL = 7.0  # points; nothing is smaller
TEXT = 8.0
DPI = 220

POINT = "#9dc3e0"
TAIL = "#4f86b5"
PREFIX = "#e69f00"
CURVE = "#c0390b"
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
STATUS_COLOURS = {
    "curved": CURVE,
    "linear": LINE,
    "affine": "#00694b",
    "superlinear": "#7b3294",
    "step": "#8a5a00",
}
STATUS_MARKERS = {"curved": "o", "linear": "_", "affine": "s", "superlinear": "^", "step": "v"}

_RC: dict[str, Any] = {
    "font.family": [
        "DejaVu Sans"
    ],  # comes with matplotlib, so a figure has the same bytes on every machine
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
    look: dict[Any, Any] = {**sns.axes_style("ticks"), **sns.plotting_context("paper"), **_RC}
    with mpl.rc_context(look):
        yield


def number(value: float | None, digits: int = 3) -> str:
    """`value` with `digits` significant digits, no trailing exponent where it can be helped; `n/a`
    where there is none.
    """
    if value is None or not math.isfinite(value):
        return "n/a"
    if value and not 1e-3 <= abs(value) < 1e4:
        mantissa, exponent = f"{value:.{max(digits - 2, 0)}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "\u2212")
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded)))) if rounded else 0
    return f"{value:.{decimals}f}".replace("-", "\u2212")


def share(value: float | None, decimals: int = 3, narrow: bool = False) -> str:
    """An R2 without false perfection: what rounds to 1 but is under it reads `>0.999`. `narrow`: no
    zero before the point.
    """
    if value is None or not math.isfinite(value):
        return "n/a"
    text = f"{value:.{decimals}f}"
    if float(text) >= 1 and value < 1 - 1e-9:
        text = f">{1 - 10**-decimals:.{decimals}f}"
    return (text.replace("0.", ".", 1) if narrow and abs(value) < 1 else text).replace(
        "-", "\u2212"
    )


def ramp(count: int, low: float = 0.0, high: float = 0.88) -> list[str]:
    """`count` colours from dark to light of the sequential map, without its palest end."""
    cmap = mpl.colormaps[DEPTH_MAP]
    return [
        mpl.colors.to_hex(cmap(low + (high - low) * i / max(count - 1, 1))) for i in range(count)
    ]


def mapped(value: float, norm: mpl.colors.Normalize) -> str:
    """Colour of a value on the sequential map."""
    return mpl.colors.to_hex(mpl.colormaps[DEPTH_MAP](float(norm(value))))


def few_ticks(ax: Axes) -> None:
    """Few round ticks in short words (`5k`) for the limits as they are: none touches another or the
    title. Text of 7 pt.
    """
    box, (width, height) = ax.get_position(), ax.figure.get_size_inches()  # type: ignore[union-attr]
    for count in (3, 2, 1):
        x = _inside(
            MaxNLocator(count, steps=[1, 2, 3, 5, 10], min_n_ticks=count).tick_values(
                *ax.get_xlim()
            ),
            ax.get_xlim(),
        )
        if _apart(x, ax.get_xlim(), box.width * width):
            break
    low, high = ax.get_ylim()
    y = _inside(
        MaxNLocator(4, steps=[1, 2, 5, 10], min_n_ticks=3).tick_values(low, high), (low, high)
    )
    y = [value for value in y if (high - value) / (high - low) * box.height * height > 0.04]
    ax.set_xticks(x, [short(value) for value in x])
    ax.set_yticks(y, [short(value) for value in y])
    ax.tick_params(labelsize=SMALL)


def _inside(ticks: Iterable[float], limits: tuple[float, float]) -> list[float]:
    return [float(value) for value in ticks if limits[0] <= value <= limits[1]]


def _apart(ticks: Sequence[float], limits: tuple[float, float], inches: float) -> bool:
    """Whether the labels of neighbouring ticks leave a gap; a character is about 0.062 in wide."""
    words = [0.062 * len(short(value)) for value in ticks]
    steps = [(b - a) / (limits[1] - limits[0]) * inches for a, b in pairwise(ticks)]
    return all(
        step > (a + b) / 2 + 0.04 for step, (a, b) in zip(steps, pairwise(words), strict=True)
    )


def log_x(ax: Axes, low: float, high: float, most: int = 6) -> None:
    """Logarithmic x axis over low .. high with at most `most` ticks in plain numbers."""
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    _log_ticks(ax.xaxis, low, high, most)


def log_y(ax: Axes, low: float, high: float, most: int = 6) -> None:
    """Logarithmic y axis over low .. high with at most `most` ticks in plain numbers."""
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    _log_ticks(ax.yaxis, low, high, most)


def _log_ticks(axis: Axis, low: float, high: float, most: int) -> None:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in (
        (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
        (1, 1.5, 2, 3, 4, 6, 8),
        (1, 2, 3, 5),
        (1, 2, 5),
        (1, 3),
        (1,),
    ):
        ticks = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
        if len(ticks) <= most:
            break
    ticks = ticks[:: math.ceil(len(ticks) / most)] if len(ticks) > most else ticks
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda v, _: plain(v)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def short(value: float) -> str:
    """A tick value for a narrow panel: `1.5`, `200`, `5k`, `2M`."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{letter}".replace("-", "\u2212")
    return plain(round(value, 12))


def plain(value: float) -> str:
    """A tick value: `0.02`, `5`, `1500`; powers of ten beyond four digits either way."""
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        return f"{value:.10g}".replace("-", "\u2212")
    mantissa, exponent = f"{value:.1e}".split("e")
    head = "" if float(mantissa) == 1 else f"{float(mantissa):g}\u00b7"
    return f"${head}10^{{{int(exponent)}}}$"

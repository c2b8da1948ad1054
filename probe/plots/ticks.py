"""Few ticks in short words, on linear and logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from probe.formatting import typeset


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
    named_ticks(ax.xaxis, x, [short_tick(value) for value in x])
    named_ticks(ax.yaxis, y, [short_tick(value) for value in y])


def named_ticks(axis: Axis, values: Sequence[float], words: Sequence[str]) -> None:
    """Ticks at `values`, inside the limits, with these words. They are made when the figure is
    drawn and not before, which `set_ticks` does.
    """
    axis.set_major_locator(FixedLocator(values))
    axis.set_major_formatter(FixedFormatter(words))


def _inside(ticks: Iterable[float], limits: tuple[float, float]) -> list[float]:
    return [float(value) for value in ticks if limits[0] <= value <= limits[1]]


def _apart(ticks: Sequence[float], limits: tuple[float, float], inches: float) -> bool:
    """Whether the labels of neighbouring ticks leave a gap; a character is about 0.062 in wide."""
    words = [0.062 * len(short_tick(value)) for value in ticks]
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
    axis.set_major_formatter(FuncFormatter(lambda v, _: tick(v)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def short_tick(value: float) -> str:
    """A tick value for a narrow panel: `1.5`, `200`, `5k`, `2M`."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return typeset(f"{value / unit:.4g}{letter}")
    return tick(round(value, 12))


def tick(value: float) -> str:
    """A tick value: `0.02`, `5`, `1500`; powers of ten beyond four digits either way."""
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        return typeset(f"{value:.10g}")
    mantissa, exponent = f"{value:.1e}".split("e")
    head = "" if float(mantissa) == 1 else f"{float(mantissa):g}\u00b7"
    return f"${head}10^{{{int(exponent)}}}$"

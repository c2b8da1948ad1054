"""Panel grids measured in inches: the same gaps for 2 and for 60 panels, and no layout solver at
draw time.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from probe.plots import style
from probe.plots.names import as_drawn

LINE = 0.17  # inches of a line of small text
CHARACTER = 0.059  # in: the widest that a character of a heading is on average
MOST_LINES = 3  # of a heading
NEXT_LINE = 0.12  # in: from one line of a heading to the next
NOTEBOOK_DPI = 110


@dataclass(frozen=True)
class Frame:
    """What stands around the panels. `heading` names the model and data, `warning` is printed
    loudly (random weights).
    """

    heading: str = ""
    warning: str = ""


@dataclass(frozen=True)
class Room:
    """Inches kept free: around the figure (left .. bottom) and around each panel (gap_x for tick
    labels, gap_y for titles).
    """

    left: float = 0.5
    right: float = 0.1
    top: float = 0.1
    bottom: float = 0.42
    gap_x: float = 0.3
    gap_y: float = 0.5
    title: float = 0.3


class Picture(Figure):
    """A figure that shows itself in a notebook, though pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with style.theme():
            self.savefig(buffer, format="png", dpi=NOTEBOOK_DPI)
        return buffer.getvalue()


def blank(width: float, height: float) -> Figure:
    """A figure that pyplot does not know, so none is left open."""
    figure = Picture(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def grid(
    panels: int,
    columns: int,
    panel_height: float,
    width: float = style.TWO_COLUMN,
    room: Room | None = None,
    frame: Frame | None = None,
    legend_lines: int = 1,
) -> tuple[Figure, list[Axes], float]:
    """`panels` Axes in `columns` columns; also the height (figure fraction) of the first legend
    line under the heading.
    """
    room, frame = room or Room(), frame or Frame()
    rows = math.ceil(panels / columns)
    heading = _height(heading_lines(frame.heading, width))
    head = room.top + heading + 0.2 * bool(frame.warning) + LINE * legend_lines
    height = (
        head
        + rows * (room.title + panel_height)
        + (rows - 1) * (room.gap_y - room.title)
        + room.bottom
    )
    figure = blank(width, height)
    panel_width = (width - room.left - room.right - (columns - 1) * room.gap_x) / columns
    axes = []
    for index in range(panels):
        row, column = divmod(index, columns)
        x = room.left + column * (panel_width + room.gap_x)
        y = height - head - room.title - panel_height - row * (panel_height + room.gap_y)
        axes.append(
            figure.add_axes((x / width, y / height, panel_width / width, panel_height / height))
        )
    top = put_heading(figure, frame, room)
    return figure, axes, top


def put_heading(figure: Figure, frame: Frame, room: Room) -> float:
    """Writes heading and warning at the top; returns the height (figure fraction) below them."""
    width, height = figure.get_size_inches()
    y = height - room.top
    x = 0.1 / width
    if frame.warning:
        figure.text(
            x,
            y / height,
            as_drawn(frame.warning.upper()),
            color="white",
            weight="bold",
            size=style.TEXT,
            va="top",
            ha="left",
            bbox={"facecolor": style.WARNING, "edgecolor": "none", "pad": 2.0},
            gid="warning",
        )
        y -= 0.2
    lines = heading_lines(frame.heading, width)
    if lines:
        figure.text(
            x,
            y / height,
            "\n".join(map(as_drawn, lines)),
            size=style.SMALL,
            color=style.MUTED,
            va="top",
            ha="left",
            gid="heading",
        )
        y -= _height(lines)
    return float(y / height)


def heading_lines(heading: str, width: float) -> list[str]:
    """The heading on a figure so wide (inches), in lines that end at a comma where they can. Of one
    that is too long for MOST_LINES the model's name, which comes first, loses its end.
    """
    room = int((width - 0.2) / CHARACTER)
    lines = _wrapped(heading, room)
    name, comma, rest = heading.partition(", ")
    kept = min(len(name), MOST_LINES * room)
    while len(lines) > MOST_LINES and kept > 1:
        kept -= 1
        lines = _wrapped(f"{name[:kept]}\u2026{comma}{rest}", room)
    if len(lines) > MOST_LINES:  # the name is not what is long
        lines = _wrapped(heading, room)[:MOST_LINES]
        lines[-1] = lines[-1][: room - 1] + "\u2026"
    return lines


def _height(lines: Sequence[str]) -> float:
    """Inches that a heading takes up: its lines are nearer to each other than to what follows."""
    return LINE + NEXT_LINE * (len(lines) - 1) if lines else 0.0


def _wrapped(text: str, room: int) -> list[str]:
    """Lines of at most `room` characters. What stands between two commas is parted only where it is
    longer than a line: after a space or a mark in a name, else anywhere.
    """
    after_a_mark = re.compile(rf".{{1,{room}}}(?:(?<=[ ,/:._-])|$)|.{{1,{room}}}", re.DOTALL)
    lines: list[str] = []
    for part in re.split("(?<=, )", text):
        for piece in after_a_mark.findall(part):
            if lines and len((lines[-1] + piece).rstrip()) <= room:
                lines[-1] += piece
            else:
                lines.append(piece)
    return [line.strip() for line in lines]


def put_legend(figure: Figure, handles: Sequence[Any], top: float, columns: int = 8) -> None:
    """One line of legend under the heading, from the left."""
    if handles:
        width = figure.get_size_inches()[0]
        figure.legend(
            handles=list(handles),
            loc="upper left",
            bbox_to_anchor=(0.1 / width, top),
            ncols=columns,
            borderpad=0,
            borderaxespad=0,
            handlelength=1.4,
            handletextpad=0.4,
            columnspacing=1.2,
            fontsize=style.SMALL,
        )


def put_labels(figure: Figure, axes: Sequence[Axes], x: str, y: str, note: str = "") -> None:
    """One x label and one y label for all panels, and a note in the bottom right corner."""
    width, height = figure.get_size_inches()
    middle = (
        min(ax.get_position().y0 for ax in axes) + max(ax.get_position().y1 for ax in axes)
    ) / 2
    span = (
        max(ax.get_position().y1 for ax in axes) - min(ax.get_position().y0 for ax in axes)
    ) * height
    y = y if len(y) * 0.07 < span + 0.4 else y.replace(" (", "\n(")
    figure.text(
        0.5 if not note else 0.1 / width,
        0.06 / height,
        x,
        size=style.TEXT,
        ha="center" if not note else "left",
        va="bottom",
    )
    figure.text(
        0.05 / width,
        middle,
        y,
        size=style.TEXT,
        rotation=90,
        ha="left",
        va="center",
        multialignment="center",
        linespacing=1.0,
    )
    if note:
        figure.text(
            1 - 0.1 / width,
            0.06 / height,
            note,
            size=style.SMALL,
            color=style.MUTED,
            ha="right",
            va="bottom",
        )


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights near `values` that are `gap` apart and, if they fit, inside low .. high: for labels
    at the ends of lines.

    Neighbours that are too close form a block around their mean; blocks that then touch are merged.
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    blocks: list[list[int]] = []
    for i in order:
        blocks.append([i])
        while (
            len(blocks) > 1
            and _bottom(values, blocks[-1], gap, low, high)
            < _top(values, blocks[-2], gap, low, high) + gap
        ):
            last = blocks.pop()
            blocks[-1] += last
    placed = [0.0] * len(values)
    for block in blocks:
        bottom = _bottom(values, block, gap, low, high)
        for step, i in enumerate(block):
            placed[i] = bottom + step * gap
    return placed


def _bottom(
    values: Sequence[float], block: list[int], gap: float, low: float, high: float
) -> float:
    size = (len(block) - 1) * gap
    middle = sum(values[i] for i in block) / len(block)
    return max(low, min(middle - size / 2, high - size))


def _top(values: Sequence[float], block: list[int], gap: float, low: float, high: float) -> float:
    return _bottom(values, block, gap, low, high) + (len(block) - 1) * gap

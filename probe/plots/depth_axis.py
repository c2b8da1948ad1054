"""The x axis of figures along depth: one tick per layer, named by the model's own names as far as
they fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probe.plots import layout, names, style

NAMED = 64  # more layers than this get their numbers only
NAME_ROOM = 0.95  # inches under the last panel


def stacked(
    heights: Sequence[float], frame: layout.Frame | None, right: float = 0.75
) -> tuple[Figure, list[Axes], float]:
    """Panels one above the other that share the depth axis, with room for layer names below and
    labels at the right.
    """
    room = layout.Room(left=0.62, right=right, gap_y=0.24, title=0.12, bottom=NAME_ROOM)
    figure, axes, top = layout.grid(
        len(heights), 1, heights[0], room=room, frame=frame, legend_lines=1
    )
    return figure, axes, top


def depth_ticks(axes: Sequence[Axes], layers: Sequence[str]) -> None:
    """Layer names, upright, under the last panel; bare ticks on the others."""
    short = names.short_names(layers, 15)
    for ax in axes:
        ax.set_xlim(-0.6, len(layers) - 0.4)
        ax.set_xticks(np.arange(len(layers)))
        ax.set_xticklabels([])
        ax.tick_params(labelsize=style.SMALL)
    last = axes[-1]
    if len(layers) <= NAMED:
        last.set_xticklabels([short[name] for name in layers], rotation=90, size=style.SMALL)
    else:
        last.set_xticks(np.arange(0, len(layers), 10))
        last.set_xticklabels([str(i) for i in range(0, len(layers), 10)], size=style.SMALL)
        last.set_xlabel("layer (execution order)", size=style.TEXT)


def status_marks(ax: Axes, statuses: Sequence[str]) -> None:
    """One mark per layer over the panel: filled for curved, a dash for linear, a square for affine,
    a cross for no result.
    """
    for status in dict.fromkeys(statuses):
        where = [i for i, s in enumerate(statuses) if s == status]
        ax.plot(
            where,
            [1.04] * len(where),
            ls="",
            marker=style.status_marker(status),
            ms=4,
            color=style.status_colour(status),
            transform=ax.get_xaxis_transform(),
            clip_on=False,
            gid=f"status {status}",
            scalex=False,
            scaley=False,
        )


def status_legend(statuses: Sequence[str]) -> list[Line2D]:
    """Legend entries of the marks that occur."""
    return [
        Line2D(
            [],
            [],
            ls="",
            marker=style.status_marker(s),
            ms=4,
            color=style.status_colour(s),
            label=s.replace("_", " "),
        )
        for s in dict.fromkeys(statuses)
    ]


def wide(fits: pd.DataFrame, layers: Sequence[str], column: str) -> pd.DataFrame:
    """layer x family table of one column, NaN where a layer has none."""
    table = fits.assign(value=pd.to_numeric(fits[column]).astype(np.float64))
    table = table.drop_duplicates(["layer", "family"])
    return table.pivot(index="layer", columns="family", values="value").reindex(index=list(layers))

"""Layers that are a line per channel (BatchNorm at evaluation): how far the lines differ, and what
one line for all would miss.

No alpha stands here: a curve pooled over channels would describe the mixture of their lines, not
the layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from probe.plots import depth_axis, layout, names, style, ticks

WHISKERS = (5, 95)  # percentiles
_BOX = "#9dc3e0"
_MARKERS = ("o", "s", "^", "D")


def lines_by_depth(fan: pd.DataFrame, *, frame: layout.Frame | None = None) -> Figure:
    """Slopes (above, log axis) and offsets (below) of the channels of each layer as boxes, along
    depth.

    `fan`: layer, channel, slope, offset; layers in execution order. Box: quartiles and median;
    whiskers: 5 % and 95 % of channels.
    """
    layers = list(dict.fromkeys(fan["layer"].astype(str)))
    with style.theme():
        figure, axes, top = depth_axis.stacked([1.5, 1.5], frame, right=0.15)
        slopes(fan, axes[0], layers=layers)
        offsets(fan, axes[1], layers=layers)
        depth_axis.depth_ticks(axes, layers)
        layout.put_legend(figure, _legend(bool((fan["slope"] <= 0).any())), top)
    return figure


def slopes(fan: pd.DataFrame, ax: Axes, *, layers: list[str]) -> Axes:
    """|slope| per channel, log axis: 1 / sqrt(running variance + eps) of BatchNorm."""
    values = [np.abs(part[part != 0]) for part in _per_layer(fan, "slope", layers)]
    _boxes(ax, values)
    ends = np.concatenate(
        [np.percentile(part, WHISKERS) for part in values if part.size] or [np.ones(2)]
    )
    ticks.log_y(ax, float(ends.min()) / 1.4, float(ends.max()) * 1.4, most=5)
    ax.set_ylabel("slope per channel", size=style.TEXT)
    return ax


def offsets(fan: pd.DataFrame, ax: Axes, *, layers: list[str]) -> Axes:
    """Offset per channel, in units of the normalized value: minus mean over standard deviation for
    BatchNorm.
    """
    _boxes(ax, _per_layer(fan, "offset", layers))
    ax.axhline(0, color=style.FAINT, lw=0.8, zorder=0)
    ax.set_ylabel("offset per channel", size=style.TEXT)
    return ax


def r2_by_scope(sides: Mapping[str, pd.DataFrame], *, frame: layout.Frame | None = None) -> Figure:
    """R2 of one line for all channels (open) and of a line per channel (filled), against relative
    depth; one colour per run.

    `sides`: title -> table with layer, depth, layer_r2, channel_r2. BatchNorm reaches 1 with a line
    per channel, LayerNorm does not, because there each token has a slope of its own.
    """
    with style.theme():
        room = layout.Room(left=0.55, right=0.15, bottom=0.45, title=0.1)
        figure, axes, top = layout.grid(
            1, 1, 1.9, style.ONE_COLUMN, room, frame, legend_lines=len(sides) + 1
        )
        [ax] = axes
        entries = [
            _scope_entry(style.LINE, "one line for all channels", False),
            _scope_entry(style.LINE, "a line per channel", True),
        ]
        lowest = 1.0
        for (title, table), colour, marker in zip(
            sides.items(), style.HIGHLIGHTS, _MARKERS, strict=False
        ):
            scopes(table, ax, colour=colour, marker=marker, title=title)
            lowest = min(
                lowest, float(np.nanmin([table["layer_r2"].min(), table["channel_r2"].min(), 1.0]))
            )
            entries.append(
                Line2D(
                    [], [], ls="", marker=marker, ms=4, color=colour, label=names.as_drawn(title)
                )
            )
        ax.set_xlabel("Relative depth of the layer", size=style.TEXT)
        ax.set_ylabel("R\u00b2 over the sampled rows", size=style.TEXT)
        ax.set_ylim(lowest - 0.04 * (1 - lowest) - 0.01, 1 + 0.04 * (1 - lowest) + 0.005)
        ax.tick_params(labelsize=style.SMALL)
        layout.put_legend(figure, entries, top, columns=1)
    return figure


def scopes(table: pd.DataFrame, ax: Axes, *, colour: str, marker: str, title: str = "") -> Axes:
    """One run of `r2_by_scope`."""
    table = table.sort_values("depth", kind="stable")
    x = np.linspace(0, 1, len(table)) if len(table) > 1 else np.array([0.5])
    for column, filled in (("layer_r2", False), ("channel_r2", True)):
        y = pd.to_numeric(table[column]).to_numpy(np.float64, na_value=np.nan)
        seen = np.isfinite(y)
        face = colour if filled else "white"
        ax.plot(
            x[seen],
            y[seen],
            ls="-",
            lw=0.7,
            marker=marker,
            ms=3.5,
            mfc=face,
            mew=0.8,
            color=colour,
            gid=f"{title} {column}",
        )
    return ax


def _per_layer(fan: pd.DataFrame, column: str, layers: list[str]) -> list[np.ndarray]:
    values = {
        str(name): part[column].to_numpy(np.float64)
        for name, part in fan.groupby("layer", observed=True)
    }
    return [values[name][np.isfinite(values[name])] for name in layers]


def _boxes(ax: Axes, values: list[np.ndarray]) -> None:
    line = {"color": style.LINE, "lw": 0.8}
    ax.boxplot(
        values,
        positions=range(len(values)),
        whis=WHISKERS,
        widths=0.6,
        showfliers=False,
        showcaps=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": _BOX, "edgecolor": style.LINE, "lw": 0.6},
        medianprops={"color": style.CURVE, "lw": 1.2},
        whiskerprops=line,
    )


def _legend(crossing: bool) -> list[Line2D | Patch]:
    entries: list[Line2D | Patch] = [
        Line2D([], [], color=style.CURVE, lw=1.2, label="median channel"),
        Patch(facecolor=_BOX, edgecolor=style.LINE, lw=0.6, label="half of the channels"),
        Line2D([], [], color=style.LINE, lw=0.8, label="5 % to 95 %"),
    ]
    return [*entries, Line2D([], [], ls="", label="(absolute slopes)")] if crossing else entries


def _scope_entry(colour: str, label: str, filled: bool) -> Line2D:
    return Line2D(
        [],
        [],
        ls="-",
        lw=0.7,
        marker="o",
        ms=3.5,
        mfc=colour if filled else "white",
        mew=0.8,
        color=colour,
        label=label,
    )

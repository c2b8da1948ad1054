"""How far each attention head looks: mean attention distance along depth, and the sorted heads of
some layers.

Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929), Raghu et al. 2021
(https://arxiv.org/abs/2108.08810) and, for several normalizers side by side, Shao et al. 2022
(https://arxiv.org/abs/2112.02624). Tables: one row per layer and head.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probe.errors import UsageError, unknown
from probe.formatting import visible
from probe.plots import attention_heads as shared
from probe.plots import layout, names, style

LEGEND_NAME = 20  # characters in half of a column
ENDS = 2  # layers shown from either end
MARKERS = "osD^vP*X"


def attention_distance(
    tables: pd.DataFrame | Mapping[str, pd.DataFrame],
    *,
    unit: str | None = None,
    frame: layout.Frame | None = None,
) -> Figure:
    """One dot per head and layer against depth, a panel per run with one y scale; `tables`: a
    table, or title -> table.

    `unit`: px (pixels of the input), patches (steps on the token grid) or uniform (relative to
    uniform attention). None: px, and uniform for runs whose images differ in size. Dashed: uniform
    attention.
    """
    titled = _titled(tables)
    unit = unit or shared.common_unit([table for _, table in titled])
    runs = [(title, shared.with_distance(table, unit)) for title, table in titled]
    heads = shared.heads_of([table for _, table in runs])
    columns = min(len(runs), 3)
    width = shared.depth_width(runs[0][1]) if len(runs) == 1 else style.TWO_COLUMN
    wrapped = [
        textwrap.wrap(names.as_drawn(title), int(width / columns / 0.1)) for title, _ in runs
    ]
    lines = max(map(len, wrapped))
    room = layout.Room(
        left=0.56,
        right=shared.KEY_ROOM,
        gap_x=0.2,
        gap_y=0.36 + 0.14 * lines,
        title=0.06 + 0.14 * lines,
    )
    with style.theme():
        figure, axes, top = layout.grid(
            len(runs), columns, 2.0, width=width, room=room, frame=frame
        )
        for ax, (_, table), title in zip(axes, runs, wrapped, strict=True):
            distance_by_depth(table, ax, unit=unit, heads=heads)
            ax.set(xlabel="", ylabel="")
            ax.set_title("\n".join(title), size=style.TEXT, weight="bold", pad=3)
        _share_y(axes, columns)
        shared.key(figure, axes[columns - 1], heads)
        layout.put_legend(figure, shared.entries(axes), top)
        layout.put_labels(figure, axes, shared.X_LABEL, shared.words_of(unit))
    return figure


def distance_by_depth(
    table: pd.DataFrame, ax: Axes | None = None, *, unit: str = "px", heads: int | None = None
) -> Axes:
    """The panel of one run. `heads`: how many the colours are spread over (default: the most that a
    layer has).
    """
    table = shared.with_distance(table, unit)
    uniform = shared.uniform_distance(table, unit)
    with style.theme():
        ax = ax if ax is not None else shared.one_panel()
        shared.index_ticks(ax, len(uniform))
        shared.stage_lines(ax, table)
        shared.uniform_line(ax, uniform)
        shared.dots(ax, table, "distance", heads or shared.heads_of([table]))
        shared.value_axis(
            ax,
            np.concatenate([table["distance"].to_numpy(np.float64), uniform]),
            shared.words_of(unit),
        )
        ax.set_xlabel(shared.X_LABEL, size=style.TEXT)
    return ax


def sorted_heads(
    table: pd.DataFrame,
    layers: Sequence[str] | None = None,
    *,
    unit: str = "px",
    frame: layout.Frame | None = None,
) -> Figure:
    """Heads of `layers` (default: the first two and the last two), nearest looking first, one line
    a layer.

    Bars: one standard deviation over images to either side. Dashed: uniform attention.
    """
    entries = (
        len(_chosen(shared.ordered(table), layers))
        + ("uniform_px" in table)
        + ("distance_px_std" in table)
    )
    with style.theme():
        room = layout.Room(left=0.5, right=0.12, title=0.05, bottom=0.4)
        figure, axes, top = layout.grid(
            1,
            1,
            1.9,
            width=style.ONE_COLUMN,
            room=room,
            frame=frame,
            legend_lines=(entries + 1) // 2,
        )
        sorted_distances(table, axes[0], layers=layers, unit=unit)
        shown = [line for line in axes[0].lines if str(line.get_label()).startswith("layer ")]
        short = names.short_names([str(x.get_gid()) for x in shown], LEGEND_NAME)
        handles = [
            Line2D(
                [],
                [],
                color=x.get_color(),
                marker=x.get_marker(),
                ms=3.5,
                lw=0.9,
                label=short[str(x.get_gid())],
            )
            for x in shown
        ]
        layout.put_legend(
            figure, [*handles, *shared.entries(axes), *_std_entry(axes[0])], top, columns=2
        )
    return figure


def sorted_distances(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    layers: Sequence[str] | None = None,
    unit: str = "px",
) -> Axes:
    """The panel of `sorted_heads`, without a legend: the name of a layer is the `gid` of its
    line.
    """
    table = shared.with_distance(table, unit)
    chosen = _chosen(table, layers)
    table = table[table["layer"].astype(str).isin(chosen)]
    uniform = np.unique(np.round(shared.uniform_distance(table, unit), 6))
    with style.theme():
        ax = ax if ax is not None else shared.one_panel()
        palette = (
            style.HIGHLIGHTS if len(chosen) <= len(style.HIGHLIGHTS) else style.ramp(len(chosen))
        )
        seen = [
            _sorted_line(ax, table, layer, i, palette[i], unit) for i, layer in enumerate(chosen)
        ]
        for value in uniform[np.isfinite(uniform)]:
            ax.axhline(value, **shared.UNIFORM, zorder=1, gid="uniform")
        most = max(len(y) // 2 for y in seen)
        shared.index_ticks(ax, most, first=1)
        shared.value_axis(ax, np.concatenate([*seen, uniform]), shared.words_of(unit))
        ax.set_xlabel("Head, sorted by distance", size=style.TEXT)
    return ax


def _sorted_line(
    ax: Axes, table: pd.DataFrame, layer: str, index: int, colour: str, unit: str
) -> np.ndarray:
    name = visible(layer)
    own = table[table["layer"].astype(str) == layer].sort_values("distance", kind="stable")
    y, std = own["distance"].to_numpy(np.float64), shared.spread_of_images(own, unit)
    x = np.arange(1, len(y) + 1)
    if np.isfinite(std).any():
        ax.vlines(x, y - std, y + std, color=colour, lw=0.8, alpha=0.6, zorder=2, gid=f"std {name}")
    ax.plot(
        x,
        y,
        color=colour,
        marker=MARKERS[index % len(MARKERS)],
        ms=3.5,
        lw=0.9,
        zorder=3,
        gid=name,
        label=f"layer {names.as_drawn(name)}",
    )
    return np.concatenate([y - np.nan_to_num(std), y + np.nan_to_num(std)])


def _std_entry(ax: Axes) -> list[Line2D]:
    drawn = any(str(c.get_gid()).startswith("std ") for c in ax.collections)
    return (
        [Line2D([], [], ls="", marker="|", ms=7, color=style.MUTED, label="\u00b1 std over images")]
        if drawn
        else []
    )


def _chosen(table: pd.DataFrame, layers: Sequence[str] | None) -> list[str]:
    known = list(dict.fromkeys(table["layer"].astype(str)))
    for name in layers or ():
        if name not in known:
            raise unknown("attention layer", name, known)
    return list(dict.fromkeys(layers or [*known[:ENDS], *known[-ENDS:]]))


def _titled(tables: pd.DataFrame | Mapping[str, pd.DataFrame]) -> list[tuple[str, pd.DataFrame]]:
    runs = (
        [("", tables)]
        if isinstance(tables, pd.DataFrame)
        else [(str(title), table) for title, table in tables.items()]
    )
    if not runs:
        raise UsageError(
            "no table of attention heads given; one table, or a mapping from title to table, is "
            "needed"
        )
    return runs


def _share_y(axes: Sequence[Axes], columns: int) -> None:
    """One y range for all panels; its numbers only at the left."""
    low, high = min(ax.get_ylim()[0] for ax in axes), max(ax.get_ylim()[1] for ax in axes)
    for index, ax in enumerate(axes):
        ax.set_ylim(low, high)
        ax.tick_params(labelleft=index % columns == 0)

"""How the curve of each layer changes while a network is trained.

Tables: one row per checkpoint and layer (`track.parquet`), or per checkpoint, layer and head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probe.plots import by_epoch, depth_axis, layout, names, style, ticks
from probe.plots.by_epoch import numbers
from probe.records import Status

GAIN = 1e-3  # a layer is curved from this gain on
FLOOR = 1e-5  # gains below it are drawn there
NOT_ESTABLISHED = "not established"


def gain_by_epoch(
    table: pd.DataFrame, *, frame: layout.Frame | None = None, unit: str = "epoch"
) -> Figure:
    """What a tanh explains more than a line, by epoch; one line per layer. The threshold of
    `curved` is dashed.
    """
    rows = table[np.isfinite(numbers(table, "gain")) & (table["status"] != Status.AFFINE)]
    with style.theme():
        figure, ax, top = by_epoch.panel(frame, legend_lines=1)
        gains(rows, ax, unit=unit)
        by_epoch.depth_bar(figure, ax, rows["depth"].to_list())
        layout.put_legend(figure, [*_fills(rows), _dashed("threshold of curved, 0.001")], top)
    return figure


def gains(rows: pd.DataFrame, ax: Axes, *, unit: str = "epoch") -> Axes:
    """Log axis with the threshold in it; gains under 0.00001 are drawn there."""
    shown = rows.assign(gain=np.maximum(numbers(rows, "gain"), FLOOR))
    low, high = (float(pick([*shown["gain"], GAIN])) for pick in (min, max))
    ticks.log_y(ax, max(FLOOR, low / 1.6), high * 1.6)
    ax.axhline(GAIN, color=style.MUTED, lw=0.8, ls=(0, (4, 2)), zorder=1, gid="threshold")
    by_epoch.draw_lines(shown, "gain", ax, solid="established")
    ax.set_ylabel("Gain of R\u00b2, tanh over a line", size=style.TEXT)
    by_epoch.epoch_axis(ax, _epochs(rows), unit)
    by_epoch.name_ends(ax, shown, "gain")
    return ax


def alpha_by_epoch(
    table: pd.DataFrame, *, frame: layout.Frame | None = None, unit: str = "epoch"
) -> Figure:
    """The fitted alpha of each layer by epoch, log axis; hollow where the curve is not
    established.
    """
    rows = table[numbers(table, "alpha") > 0]
    with style.theme():
        figure, ax, top = by_epoch.panel(frame, legend_lines=1)
        _positive(rows, "alpha", ax, unit)
        ax.set_ylabel("\u03b1 of the fitted tanh (1 / input unit)", size=style.TEXT)
        by_epoch.depth_bar(figure, ax, rows["depth"].to_list())
        layout.put_legend(figure, _fills(rows), top)
    return figure


def extremes_by_epoch(
    table: pd.DataFrame, *, frame: layout.Frame | None = None, unit: str = "epoch"
) -> Figure:
    """Share of the elements that lie beyond the linear part of the fitted curve, in per cent, log
    axis.
    """
    rows = table.assign(share=100 * numbers(table, "beyond_linear"))
    rows = rows[rows["share"] > 0]
    with style.theme():
        figure, ax, top = by_epoch.panel(frame, legend_lines=1)
        _positive(rows, "share", ax, unit)
        ax.set_ylabel("Elements beyond the linear part (%)", size=style.TEXT)
        by_epoch.depth_bar(figure, ax, rows["depth"].to_list())
        layout.put_legend(figure, _fills(rows), top)
    return figure


def _positive(rows: pd.DataFrame, value: str, ax: Axes, unit: str) -> None:
    """Lines on a log axis around their values."""
    values = numbers(rows, value)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.1, 1.0)
    pad = max((high / low) ** 0.06, 1.05)
    ticks.log_y(ax, low / pad, high * pad)
    by_epoch.draw_lines(rows, value, ax, solid="established")
    by_epoch.epoch_axis(ax, _epochs(rows), unit)
    by_epoch.name_ends(ax, rows, value)


def attention_by_epoch(
    heads: pd.DataFrame, *, frame: layout.Frame | None = None, unit: str = "epoch"
) -> Figure:
    """Mean attention distance of the heads of each layer by epoch, the axis from 0; dashed:
    attention that looks everywhere alike.

    In pixels, or in patches where the pixels of a token are not known.
    """
    value, words = distance_of(heads)
    means = heads.groupby(["epoch", "layer"], sort=False, as_index=False).agg(
        depth=("depth", "first"), value=(value, "mean")
    )
    with style.theme():
        figure, ax, top = by_epoch.panel(frame, legend_lines=1)
        by_epoch.draw_lines(means, "value", ax)
        uniform = sorted(set(heads["uniform_px"].dropna())) if value == "distance_px" else []
        for level in uniform:
            ax.axhline(level, color=style.MUTED, lw=0.8, ls=(0, (4, 2)), zorder=1, gid="uniform")
        ax.set_ylim(0, 1.06 * max([float(means["value"].max()), *uniform]))
        ax.set_ylabel(f"Mean attention distance ({words})", size=style.TEXT)
        by_epoch.epoch_axis(ax, _epochs(means), unit)
        by_epoch.name_ends(ax, means, "value")
        by_epoch.depth_bar(figure, ax, means["depth"].to_list())
        layout.put_legend(figure, [_dashed("uniform attention")] if uniform else [], top)
    return figure


def distance_of(heads: pd.DataFrame) -> tuple[str, str]:
    """Column and unit of the attention distance of this table."""
    in_pixels = bool(heads["distance_px"].notna().any())
    return ("distance_px", "px") if in_pixels else ("distance_patches", "patches")


def shape_by_epoch(
    table: pd.DataFrame, *, frame: layout.Frame | None = None, unit: str = "epoch"
) -> Figure:
    """The status of every layer at every checkpoint: layers downwards in execution order,
    checkpoints along.
    """
    layers = list(table.sort_values("depth", kind="stable")["layer"].drop_duplicates())
    statuses = [str(status) for status in table["status"].drop_duplicates()]
    with style.theme():
        room = layout.Room(left=1.35, right=0.15, top=0.1, title=0.08, bottom=0.42)
        figure, (ax,), top = layout.grid(
            1, 1, max(1.2, 0.125 * len(layers)), style.TWO_COLUMN, room, frame
        )
        statuses_by_epoch(table, ax, layers=layers, unit=unit)
        layout.put_legend(figure, depth_axis.status_legend(statuses), top)
    return figure


def statuses_by_epoch(
    table: pd.DataFrame, ax: Axes, *, layers: Sequence[str], unit: str = "epoch"
) -> Axes:
    """A mark for each checkpoint and layer, by its status."""
    row = {name: place for place, name in enumerate(layers)}
    epochs = _epochs(table)
    column = {epoch: place for place, epoch in enumerate(epochs)}
    for status, rows in table.groupby(table["status"].astype(str), sort=False):
        ax.plot(
            [column[epoch] for epoch in rows["epoch"]],
            [row[name] for name in rows["layer"]],
            ls="",
            marker=style.status_marker(str(status)),
            ms=4 if len(epochs) <= 60 else 2.5,
            color=style.status_colour(str(status)),
            gid=f"status {status}",
        )
    short = names.short_names(layers, 20)
    ax.set_ylim(len(layers) - 0.4, -0.6)
    ax.set_yticks(range(len(layers)), [short[name] for name in layers], size=style.SMALL)
    ax.set_xlim(-0.6, len(epochs) - 0.4)
    places = range(0, len(epochs), max(1, -(-len(epochs) // 24)))
    ax.set_xticks(list(places), [f"{epochs[place]:g}" for place in places], size=style.SMALL)
    ax.set_xlabel(unit.capitalize(), size=style.TEXT)
    return ax


def _epochs(table: pd.DataFrame) -> list[float]:
    return sorted({float(epoch) for epoch in table["epoch"]})


def _fills(rows: pd.DataFrame) -> list[Line2D]:
    """What filled and hollow points mean; of those that are there."""
    looks = {True: ("curved", style.MUTED), False: (NOT_ESTABLISHED, "white")}
    there = {bool(value) for value in rows["established"]}
    return [
        Line2D([], [], ls="", marker="o", ms=3.5, color=style.MUTED, mfc=face, label=label)
        for sure, (label, face) in looks.items()
        if sure in there
    ]


def _dashed(label: str) -> Line2D:
    return Line2D([], [], color=style.MUTED, lw=0.8, ls=(0, (4, 2)), label=label)

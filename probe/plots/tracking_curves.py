"""The fitted curves of a few layers, one for each checkpoint of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probe.plots import by_epoch, fitted, layout, names, s_curve, style, ticks
from probe.records import Status

PANELS = 6
CHARACTERS = 30  # of a name over a panel


def curves_by_epoch(
    table: pd.DataFrame,
    layers: Sequence[str],
    *,
    frame: layout.Frame | None = None,
    unit: str = "epoch",
    shape: fitted.Shape = fitted.TANH,
) -> Figure:
    """A panel per layer: the curve fitted to every element at each checkpoint, over the range of
    the inputs that it saw; coloured by epoch, pale where it is not shown to be better than a line.

    `table`: epoch, layer, status, alpha, gamma, beta, slope, min_input, max_input.
    """
    columns = min(len(layers), 3)
    norm = by_epoch.scale(table["epoch"].astype(float).to_list())
    with style.theme():
        room = layout.Room(left=0.55, right=0.7, gap_x=0.4, gap_y=0.5, title=0.2, bottom=0.45)
        figure, axes, top = layout.grid(
            len(layers), columns, 1.55 if columns == 3 else 2.0, room=room, frame=frame
        )
        short = names.short_names(layers, CHARACTERS)
        for ax, layer in zip(axes, layers, strict=True):
            curves(table[table["layer"] == layer], ax, norm=norm, shape=shape)
            ax.set_title(short[layer], loc="left", size=style.SMALL, weight="bold", pad=2.5)
        by_epoch.bar(figure, axes[columns - 1], norm, unit)
        layout.put_labels(figure, axes, s_curve.X_LABEL, s_curve.Y_LABEL)
        layout.put_legend(figure, _legend(table[table["layer"].isin(layers)]), top)
    return figure


def curves(
    rows: pd.DataFrame, ax: Axes, *, norm: Normalize, shape: fitted.Shape = fitted.TANH
) -> Axes:
    """One layer; later checkpoints over earlier ones."""
    cmap, spans = by_epoch.colours(), []
    for row in rows.sort_values("epoch", kind="stable").to_dict("records"):
        x, z = curve(row, shape)
        if z is None:
            continue
        sure = row["status"] == Status.CURVED
        ax.plot(
            x,
            z,
            color=cmap(norm(float(row["epoch"]))),
            lw=1.3 if sure else 1.0,
            alpha=0.95 if sure else by_epoch.PALE,
            gid="curve" if sure else "not established",
        )
        spans.append((x[0], x[-1], z.min(), z.max()))
    _finish(ax, spans, rows)
    return ax


def curve(row: dict[Any, Any], shape: fitted.Shape) -> tuple[fitted.Array, fitted.Array | None]:
    """x and z of the fitted curve of a row, or of its line, over the range of the inputs; z None
    where there is nothing to draw.
    """
    low, high = fitted.get(row, "min_input"), fitted.get(row, "max_input")
    if not (math.isfinite(low) and math.isfinite(high)):
        return np.empty(0), None
    x = fitted.abscissa(low, high, fitted.get(row, "alpha"))
    return x, fitted.evaluate(row, x, shape)


def _finish(ax: Axes, spans: Sequence[tuple[float, ...]], rows: pd.DataFrame) -> None:
    if not spans:
        statuses = list(dict.fromkeys(str(status).replace("_", " ") for status in rows["status"]))
        ax.set_xticks([])
        ax.set_yticks([])
        ax.text(
            0.5,
            0.5,
            ", ".join(statuses) or "no curve",
            transform=ax.transAxes,
            ha="center",
            va="center",
            size=style.SMALL,
            gid="status",
        )
        return
    left, right, low, high = (
        pick(each)
        for pick, each in zip((min, max, min, max), zip(*spans, strict=True), strict=True)
    )
    ax.set_xlim(*_padded(left, right))
    ax.set_ylim(*_padded(low, high))
    ticks.few_ticks(ax)
    ax.axhline(0, color=style.FAINT, lw=0.5, zorder=0)
    ax.axvline(0, color=style.FAINT, lw=0.5, zorder=0)


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.05 * (high - low) or 1.0
    return low - pad, high + pad


def _legend(rows: pd.DataFrame) -> list[Line2D]:
    """What full and pale colours mean; of those that are there."""
    shown = by_epoch.colours()(0.35)
    curved = rows["status"] == Status.CURVED
    entries = []
    if curved.any():
        entries.append(Line2D([], [], color=shown, lw=1.3, label="curved"))
    if not curved.all():
        entries.append(
            Line2D([], [], color=shown, lw=1.0, alpha=by_epoch.PALE, label="not established")
        )
    return entries

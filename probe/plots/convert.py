"""What it costs to put curves in place of normalization layers, along depth.

Each layer replaced alone, and together with all layers before it: error of the layer's output, KL
divergence of the model's outputs from the original's, and share of images whose largest logit is
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from probe.plots import depth_axis, layout, style

# column suffix -> label, colour, marker
WAYS = {
    "": ("this layer alone", "#0072b2", "o"),
    "_cumulative": ("with all before it", "#d55e00", "s"),
}
MARKS = {"curve": ("o", "curve"), "line": ("_", "line"), "": ("x", "left out")}
ACCURACY = "#000000"
BAND = "#e6f2ec"
FLOOR = {"rel_error": 1e-7, "kl": 1e-8}  # under these, float32 rounding


def conversion_by_depth(
    table: pd.DataFrame, *, accuracy: float | None = None, frame: layout.Frame | None = None
) -> Figure:
    """Relative output error and KL (log axes) and agreement along depth.

    table: the rows of a conversion (layer, depth, family, replaced, rel_error, kl, agreement,
    accuracy, and each with `_cumulative`). accuracy: top-1 of the original, where there are labels;
    the accuracy of the changed models stands beside it.
    """
    table = table.sort_values("depth", kind="stable")
    layers = [str(name) for name in table["layer"]]
    with style.theme():
        figure, axes, top = depth_axis.stacked([1.25, 1.25, 1.25], frame, right=0.15)
        on_log_axis(table, axes[0], "rel_error", "relative output error")
        on_log_axis(table, axes[1], "kl", "KL (nats)")
        same_class(table, axes[2], accuracy)
        depth_axis.depth_ticks(axes, layers)
        marks = _stand_in_marks(axes[0], table)
        bands = _bands(axes, table)
        for ax in axes:
            ax.yaxis.set_label_coords(-0.075, 0.5)
        layout.put_legend(figure, _legend(axes) + bands + marks, top)
    return figure


def on_log_axis(table: pd.DataFrame, ax: Axes, column: str, label: str) -> Axes:
    """One column and its cumulative twin; what is under the floor of float32 stands on it."""
    seen = []
    for suffix, (_, colour, marker) in WAYS.items():
        y = _numbers(table, column + suffix)
        y[~np.isfinite(y)] = np.nan
        y = np.maximum(y, FLOOR[column])
        ax.plot(
            np.arange(len(y)), y, color=colour, marker=marker, ms=3, lw=0.8, gid=column + suffix
        )
        seen.append(y[np.isfinite(y)])
    every = np.concatenate(seen)
    low, high = (float(every.min()), float(every.max())) if every.size else (FLOOR[column], 1.0)
    style.log_y(ax, low / 1.4, high * 1.4, most=5)
    ax.set_ylabel(label, size=style.TEXT)
    return ax


def same_class(table: pd.DataFrame, ax: Axes, accuracy: float | None = None) -> Axes:
    """Agreement with the original in percent; with `accuracy`, that of the original (dashed) and of
    the changed models too.
    """
    x, seen = np.arange(len(table)), [100.0]
    for suffix, (_, colour, marker) in WAYS.items():
        for column in ("agreement", "accuracy") if accuracy is not None else ("agreement",):
            y = 100 * _numbers(table, column + suffix)
            faded = column == "accuracy"
            ax.plot(
                x,
                y,
                color=colour,
                marker=marker,
                ms=3,
                lw=0.8,
                ls=(0, (1, 1)) if faded else "-",
                mfc="white" if faded else colour,
                gid=column + suffix,
            )
            seen += y[np.isfinite(y)].tolist()
    if accuracy is not None:
        ax.axhline(100 * accuracy, color=ACCURACY, lw=0.8, ls=(0, (4, 2)), gid="original")
        seen.append(100 * accuracy)
    low = min(seen)
    ax.set_ylim(low - 0.06 * max(100 - low, 1), 100 + 0.06 * max(100 - low, 1))
    label = "same class, top-1 (%)" if accuracy is not None else "same class (%)"
    ax.set_ylabel(label, size=style.TEXT)
    return ax


def _stand_in_marks(ax: Axes, table: pd.DataFrame) -> list[Line2D]:
    """One mark per layer over the panel: a curve, a line, or none; their legend where there are
    several kinds.
    """
    kinds = [_kind(str(family)) for family in table["family"].fillna("")]
    entries = []
    for kind in dict.fromkeys(kinds):
        marker, label = MARKS[kind]
        where = [i for i, each in enumerate(kinds) if each == kind]
        ax.plot(
            where,
            [1.05] * len(where),
            ls="",
            marker=marker,
            ms=4,
            color=style.LINE,
            transform=ax.get_xaxis_transform(),
            clip_on=False,
            gid=f"stand-in {kind}",
            scalex=False,
            scaley=False,
        )
        entries.append(Line2D([], [], ls="", marker=marker, ms=4, color=style.LINE, label=label))
    return entries


def _kind(family: str) -> str:
    """What stands in for a layer: a key of `MARKS`."""
    return {"": "", "linear": "line"}.get(family, "curve")


def _bands(axes: Sequence[Axes], table: pd.DataFrame) -> list[Patch]:
    """A tint behind the layers that were replaced in the end, where that is not all that could
    be.
    """
    replaced = table["replaced"].to_numpy(bool)
    if replaced[(table["family"].fillna("") != "").to_numpy()].all():
        return []
    for ax in axes:
        for i in np.flatnonzero(replaced):
            ax.axvspan(i - 0.5, i + 0.5, color=BAND, lw=0, zorder=0, gid="replaced")
    return [Patch(color=BAND, label="replaced in the end")]


def _legend(axes: Sequence[Axes]) -> list[Line2D]:
    entries = [
        Line2D([], [], color=colour, marker=marker, ms=3, lw=0.8, label=label)
        for label, colour, marker in WAYS.values()
    ]
    drawn = {line.get_gid() for line in axes[2].lines}
    if "original" in drawn:
        changed: dict[str, Any] = {
            "color": style.MUTED,
            "marker": "o",
            "ms": 3,
            "ls": (0, (1, 1)),
            "mfc": "white",
        }
        original: dict[str, Any] = {"color": ACCURACY, "ls": (0, (4, 2))}
        entries.append(Line2D([], [], lw=0.8, label="top-1", **changed))
        entries.append(Line2D([], [], lw=0.8, label="top-1 of the original", **original))
    return entries


def _numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    return pd.to_numeric(table[column]).to_numpy(np.float64, na_value=np.nan).copy()

"""A training by epoch: loss, accuracy and time; and what its normalizers learned.

Tables: `epochs`, one row per epoch, and `norms`, one row per epoch, layer, quantity and index.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probe.plots import by_epoch, layout, style, ticks
from probe.plots.by_epoch import numbers

TRAIN, VAL = "#0072b2", "#d55e00"
TOP5 = "#e69f00"
SECONDS = "#009e73"


def training_curves(epochs: pd.DataFrame, *, frame: layout.Frame | None = None) -> Figure:
    """Loss, accuracy and seconds per epoch side by side; a panel without data is left out."""
    panels = [draw for draw, columns in _PANELS if _has(epochs, *columns)]
    with style.theme():
        room = layout.Room(left=0.5, right=0.12, gap_x=0.55, title=0.08, bottom=0.42)
        figure, axes, _ = layout.grid(
            len(panels), len(panels), 1.75, room=room, frame=frame, legend_lines=0
        )
        for draw, ax in zip(panels, axes, strict=True):
            draw(epochs, ax)
    return figure


def loss(epochs: pd.DataFrame, ax: Axes) -> Axes:
    """Mean loss over the images of an epoch, in training (with augmentation) and on the validation
    images.
    """
    drawn = [("train_loss", TRAIN, "training"), ("val_loss", VAL, "validation")]
    _lines(ax, epochs, drawn, "Loss")
    return ax


def accuracy(epochs: pd.DataFrame, ax: Axes) -> Axes:
    """Top-1 and, where there is one, top-5 on the validation images, in per cent."""
    drawn = [("top5", TOP5, "top-5"), ("top1", VAL, "top-1")]
    _lines(ax, epochs, drawn, "Validation accuracy (%)")
    ax.set_ylim(0, 102)
    return ax


def seconds(epochs: pd.DataFrame, ax: Axes) -> Axes:
    """Time of the training part of each epoch, and of the evaluation; the axis from 0."""
    drawn = [("seconds", SECONDS, "training"), ("eval_seconds", style.MUTED, "evaluation")]
    _lines(ax, epochs, drawn, "Seconds per epoch")
    ax.set_ylim(0, 1.15 * float(np.nanmax(numbers(epochs, "seconds"))) or 1)
    return ax


_PANELS = (
    (loss, ("train_loss", "val_loss")),
    (accuracy, ("top1",)),
    (seconds, ("seconds",)),
)


def _has(epochs: pd.DataFrame, *columns: str) -> bool:
    return any(name in epochs and np.isfinite(numbers(epochs, name)).any() for name in columns)


def _lines(ax: Axes, epochs: pd.DataFrame, drawn: list[tuple[str, str, str]], label: str) -> None:
    """One line per column that has values, and its word in its colour."""
    shown, x = [], epochs["epoch"].to_numpy(np.float64)
    for column, colour, word in drawn:
        if not _has(epochs, column):
            continue
        y = numbers(epochs, column)
        seen = np.isfinite(y)
        marker = "o" if seen.sum() <= 40 else ""
        ax.plot(x[seen], y[seen], color=colour, marker=marker, ms=2.2, lw=1.1, gid=column)
        shown.append(Line2D([], [], color=colour, lw=1.1, label=word))
    ax.set_ylabel(label, size=style.TEXT)
    by_epoch.epoch_axis(ax, x.tolist())
    ax.tick_params(labelsize=style.SMALL)
    if len(shown) > 1:
        ax.legend(handles=shown, loc="best", fontsize=style.SMALL, handlelength=1.2)


def alpha_evolution(norms: pd.DataFrame, *, frame: layout.Frame | None = None) -> Figure:
    """Alpha of every DyT or Derf layer by epoch, one line per layer, coloured by depth."""
    rows = of_quantity(norms, "alpha")
    with style.theme():
        figure, ax, _ = by_epoch.panel(frame, 2.9)
        by_epoch.draw_lines(rows, "value", ax)
        values = rows["value"].to_numpy(np.float64)
        low, high = float(values.min()), float(values.max())
        pad = 0.05 * (high - low) or 0.1
        ax.set_ylim(low - pad, high + pad)
        ax.set_ylabel("\u03b1 of the layer", size=style.TEXT)
        by_epoch.epoch_axis(ax, sorted(set(rows["epoch"].astype(float))))
        by_epoch.name_ends(ax, rows, "value", count=7)
        by_epoch.depth_bar(figure, ax, rows["depth"].to_list())
    return figure


def of_quantity(norms: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The rows of one quantity, with finite values; the mean over indices (heads) of a layer.

    The shares of a SwitchNorm are left out: its three sum to one, and their mean says nothing.
    """
    rows = norms[(norms["quantity"] == quantity) & np.isfinite(norms["value"].astype(np.float64))]
    rows = (
        rows[~rows["kind"].astype(str).str.startswith("switch_norm")]
        if "share" in quantity
        else rows
    )
    means = rows.groupby(["epoch", "layer"], sort=False, as_index=False)
    return means.agg(depth=("depth", "first"), value=("value", "mean"))


QUANTITIES = {
    "beta": "\u03b2 of the root",
    "mean_share": "share of the token's own mean",
    "var_share": "share of its own variance",
    "gain_mean": "mean gain of the channels",
    "gain_std": "std of the gains over channels",
    "gain_negative_share": "share of negative gains",
    "running_scale": "running scale of the input",
    "input_std": "std of the input",
}
LOGARITHMIC = ("running_scale", "input_std")


def norm_parameters(norms: pd.DataFrame, *, frame: layout.Frame | None = None) -> Figure:
    """What the normalizers hold besides alpha, by epoch: a panel per quantity, a line per layer."""
    there = told_quantities(norms)
    with style.theme():
        columns = min(len(there), 3)
        room = layout.Room(left=0.5, right=0.7, gap_x=0.5, gap_y=0.5, title=0.2, bottom=0.42)
        figure, axes, _ = layout.grid(
            len(there), columns, 1.5, room=room, frame=frame, legend_lines=0
        )
        for name, ax in zip(there, axes, strict=True):
            _parameter(of_quantity(norms, name), name, ax)
        depths = norms["depth"].astype(float).to_list()
        by_epoch.bar(figure, axes[columns - 1], by_epoch.scale(depths), "depth (execution order)")
    return figure


def told_quantities(norms: pd.DataFrame) -> list[str]:
    """The quantities with values; a share that is zero everywhere says nothing."""
    return [name for name in QUANTITIES if of_quantity(norms, name)["value"].any()]


def _parameter(rows: pd.DataFrame, name: str, ax: Axes) -> None:
    values = rows["value"].to_numpy(np.float64)
    by_epoch.draw_lines(rows, "value", ax)
    if name in LOGARITHMIC and (values > 0).all():
        ticks.log_y(ax, float(values.min()) / 1.3, float(values.max()) * 1.3, most=5)
    by_epoch.epoch_axis(ax, sorted(set(rows["epoch"].astype(float))))
    ax.set_title(QUANTITIES[name], loc="left", size=style.SMALL, pad=2.5)

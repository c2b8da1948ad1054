"""Prefix tokens (class, distillation, registers) against patch tokens: two kinds of token, often
two curves in one layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probe.plots import fitted, layout, names, points, s_curve, style
from probe.plots.s_curve_grid import GridPlan

COLOURS = {"patch": ("#a9bfd3", "#0b5394"), "prefix": ("#f2b134", "#a34700")}


def prefix_and_patch(
    samples: pd.DataFrame,
    fits: pd.DataFrame | None = None,
    ax: Axes | None = None,
    *,
    layer: str | None = None,
    shape: fitted.Shape = fitted.TANH,
) -> Axes:
    """Scatter of one layer in two colours, each with its own fit. `samples` has a column `tokens`
    (patch, prefix).
    """
    layer = s_curve.one_layer(samples, layer)
    shown = points.of_layer(samples, layer)
    shown = shown[np.isfinite(shown["input"]) & np.isfinite(shown["normalized"])]
    with style.theme():
        ax = ax if ax is not None else s_curve.single()
        for kind, (light, dark) in COLOURS.items():
            part = shown[shown["tokens"] == kind]
            part = points.thin(part, points.POINTS if kind == "patch" else 1500)
            if part.empty:
                continue
            ax.scatter(
                part["input"].to_numpy(),
                part["normalized"].to_numpy(),
                s=2.4,
                c=light,
                alpha=0.6,
                linewidths=0,
                rasterized=True,
                zorder=1 + (kind == "prefix"),
                gid=kind,
            )
            x, z = _curve(part, fits, layer, kind, shape)
            if z is not None:
                ax.plot(x, z, color=dark, lw=1.4, zorder=3, gid=f"{kind} fit")
        s_curve.finish(ax, shown)
    return ax


def token_grid(
    samples: pd.DataFrame | Mapping[str, pd.DataFrame],
    fits: pd.DataFrame | None,
    layers: Sequence[str],
    *,
    frame: layout.Frame | None = None,
    shape: fitted.Shape = fitted.TANH,
) -> Figure:
    """`prefix_and_patch` of some layers side by side, with the result of both fits over each
    panel.
    """
    plan = GridPlan.of(len(layers))
    by_layer, fits_of = points.per_layer(samples), points.per_layer(fits)
    with style.theme():
        room = layout.Room(
            left=plan.room.left,
            right=plan.room.right,
            gap_x=plan.room.gap_x,
            gap_y=0.62,
            title=0.42,
        )
        figure, axes, top = layout.grid(
            len(layers), plan.columns, plan.height, room=room, frame=frame
        )
        short = names.short_names(layers, plan.characters)
        for ax, layer in zip(axes, layers, strict=True):
            prefix_and_patch(by_layer[layer], fits_of.get(layer), ax, layer=layer, shape=shape)
            for line, kind in enumerate(("prefix", "patch")):
                row = fitted.pick(fits_of.get(layer), layer, shape.family, tokens=kind)
                text = fitted.summary(row, 3 if plan.columns <= 4 else 2, narrow=plan.columns > 4)
                _over(ax, text, 2.5 + 9 * line, COLOURS[kind][1], "normal", f"{kind} summary")
            _over(ax, short[layer], 20.5, style.LINE, "bold", "name")
        layout.put_legend(figure, _legend(axes, shape), top)
        layout.put_labels(figure, axes, s_curve.X_LABEL, s_curve.Y_LABEL)
    return figure


def _curve(
    part: pd.DataFrame, fits: pd.DataFrame | None, layer: str, kind: str, shape: fitted.Shape
) -> tuple[fitted.Array, fitted.Array | None]:
    row = fitted.pick(fits, layer, shape.family, tokens=kind)
    x = fitted.abscissa(
        float(part["input"].min()), float(part["input"].max()), fitted.get(row, "alpha")
    )
    return x, fitted.evaluate(row, x, shape)


def _over(ax: Axes, text: str, points_up: float, colour: str, weight: str, gid: str) -> None:
    ax.annotate(
        text,
        (0, 1),
        (0, points_up),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="left",
        va="bottom",
        size=style.SMALL,
        color=colour,
        weight=weight,
        gid=gid,
    )


def _legend(axes: Sequence[Axes], shape: fitted.Shape) -> list[Line2D]:
    drawn = {artist.get_gid() for ax in axes for artist in [*ax.collections, *ax.lines]}
    words = {"patch": "patch tokens", "prefix": "prefix tokens (class, registers)"}
    dots = [
        Line2D([], [], marker="o", ls="", ms=3.5, color=COLOURS[k][0], label=words[k])
        for k in COLOURS
        if k in drawn
    ]
    lines = [
        Line2D([], [], lw=1.4, color=COLOURS[k][1], label=f"{shape.family} or line, {k}")
        for k in COLOURS
        if f"{k} fit" in drawn
    ]
    return dots + lines

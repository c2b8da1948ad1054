"""The S-curves: normalized against input of a layer, element by element, with the fitted curve over it.

Figure 2 of DyT (https://arxiv.org/abs/2503.10622): output of the norm before its affine on y, its input on x. A layer that is
affine per channel is drawn as what it is, a fan of one line per channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probe.errors import UsageError
from probe.plots import fitted, layout, names, points, style

X_LABEL = "Layer input x (activation units)"
Y_LABEL = "Normalized z (before the affine)"


def s_curves(
    samples: pd.DataFrame,
    fits: pd.DataFrame | None = None,
    ax: Axes | None = None,
    *,
    layer: str | None = None,
    shape: fitted.Shape = fitted.TANH,
    fan: pd.DataFrame | None = None,
    fan_norm: Normalize | None = None,
    points_shown: int = points.POINTS,
) -> Axes:
    """Scatter of one layer with its fitted curve; of an affine layer its fan of lines.

    `samples`: the samples table of a layer (`layer` chooses where it holds several); `fits`: the fits table; `fan`: per channel
    slope, offset, low, high (x range) of affine layers. Solid: the fit to every element; dashed: the one that weighs the x range
    evenly.
    """
    layer = one_layer(samples, layer)
    shown = points.thin(points.of_layer(samples, layer), points_shown)
    lines = points.of_layer(fan, layer) if fan is not None else None
    row = fitted.pick(fits, layer, shape.family)
    affine = lines is not None and not lines.empty
    status = "affine" if affine else str(row["status"]) if row is not None else ""
    with style.theme():
        ax = ax if ax is not None else single()
        if affine and lines is not None:
            draw_fan(ax, lines, fan_norm)
            scatter(ax, shown[shown["stratum"].astype(str) == "tail"], light=True)
        else:
            scatter(ax, shown)
            draw_curve(ax, shown, fits, layer, shape)
        finish(ax, shown, status)
    return ax


def scatter(ax: Axes, shown: pd.DataFrame, light: bool = False) -> None:
    """Points of the uniform rows under those of the tail; rasterized, so that an SVG stays small."""
    labels = shown["stratum"].astype(str)
    for stratum, colour, size, alpha in (("uniform", style.POINT, 2.2, 0.55), ("tail", style.TAIL, 2.6, 0.6)):
        part = shown[labels == stratum]
        if not part.empty:
            ax.scatter(
                part["input"].to_numpy(),
                part["normalized"].to_numpy(),
                s=size,
                c=colour,
                alpha=0.35 if light else alpha,
                linewidths=0,
                rasterized=True,
                zorder=1.2 if light else 1,
                gid=stratum,
            )


def draw_curve(
    ax: Axes, shown: pd.DataFrame, fits: pd.DataFrame | None, layer: str, shape: fitted.Shape = fitted.TANH, tokens: str = "all"
) -> None:
    """The fitted curve over the x range shown; the range-weighted one dashed."""
    if shown.empty:
        return
    low, high = float(shown["input"].min()), float(shown["input"].max())
    for weighting, dashes in (("range", (0, (3, 2))), ("population", "-")):
        row = fitted.pick(fits, layer, shape.family, weighting=weighting, tokens=tokens)
        curved = math.isfinite(fitted.get(row, "alpha"))
        if weighting == "range" and not curved:
            continue
        x = fitted.abscissa(low, high, fitted.get(row, "alpha"))
        z = fitted.evaluate(row, x, shape)
        if z is not None:
            ax.plot(
                x,
                z,
                color=style.CURVE if curved else style.LINE,
                ls=dashes,
                lw=0.9 if weighting == "range" else 1.4,
                zorder=3,
                gid=weighting,
            )


def draw_fan(ax: Axes, lines: pd.DataFrame, norm: Normalize | None = None) -> LineCollection:
    """One line per channel over the range of its inputs, coloured by its slope; the flat lines of many channels lie on top."""
    lines = lines[np.isfinite(lines["slope"]) & np.isfinite(lines["low"]) & np.isfinite(lines["high"])].sort_values(
        "slope", ascending=False, kind="stable"
    )
    slope, offset = lines["slope"].to_numpy(np.float64), lines["offset"].to_numpy(np.float64)
    x = lines[["low", "high"]].to_numpy(np.float64)
    segments = np.stack([x, slope[:, None] * x + offset[:, None]], axis=2)
    collection = LineCollection(
        list(segments),
        array=np.abs(slope),
        cmap=style.DEPTH_MAP,
        norm=norm or slope_norm(lines),
        linewidths=0.5,
        alpha=0.7,
        rasterized=True,
        gid="fan",
    )
    ax.add_collection(collection)
    ax.autoscale_view()
    return collection


def slope_norm(fan: pd.DataFrame) -> Normalize:
    """A logarithmic colour scale over the slopes of all channels, outermost 2 % clipped."""
    slope = np.abs(fan["slope"].to_numpy(np.float64))
    slope = slope[np.isfinite(slope) & (slope > 0)]
    low, high = (float(v) for v in np.quantile(slope, [0.02, 0.98])) if slope.size else (1.0, 1.0)
    return LogNorm(low, high if high > low * 1.01 else low * 1.01, clip=True)


def finish(ax: Axes, shown: pd.DataFrame, status: str = "") -> None:
    """Ticks, a faint zero cross, the status in the free upper left corner; a panel without points says so."""
    style.few_ticks(ax)
    if shown.empty:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.text(
            0.5,
            0.5,
            status.replace("_", " ") or "no finite values",
            transform=ax.transAxes,
            ha="center",
            va="center",
            size=style.SMALL,
            gid="status",
        )
        return
    ax.margins(0.04)
    ax.axhline(0, color=style.FAINT, lw=0.5, zorder=0)
    ax.axvline(0, color=style.FAINT, lw=0.5, zorder=0)
    if status:
        ax.text(
            0.03,
            0.97,
            status.replace("_", " "),
            transform=ax.transAxes,
            ha="left",
            va="top",
            size=style.SMALL,
            zorder=4,
            gid="status",
            color=style.STATUS_COLOURS.get(status, style.MUTED),
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )


def s_curve_grid(
    samples: pd.DataFrame,
    fits: pd.DataFrame | None = None,
    *,
    layers: Sequence[str] | None = None,
    fan: pd.DataFrame | None = None,
    shape: fitted.Shape = fitted.TANH,
    columns: int | None = None,
    frame: layout.Frame | None = None,
    statuses: dict[str, str] | None = None,
) -> Figure:
    """All `layers` (default: all in `samples`) in reading order at two-column width, each with alpha, R2 / ceiling and status.

    `statuses`: what a panel without points says (`not_finite`, `not_called`).
    """
    layers = list(layers) if layers is not None else [str(name) for name in pd.unique(samples["layer"].astype(str))]
    plan = GridPlan.of(len(layers), columns)
    by_layer = dict(list(samples.groupby(samples["layer"].astype(str), sort=False)))
    norm = slope_norm(fan) if fan is not None and not fan.empty else None
    with style.theme():
        figure, axes, top = layout.grid(len(layers), plan.columns, plan.height, room=plan.room, frame=frame)
        short = names.short_names(layers, plan.characters)
        for ax, layer in zip(axes, layers, strict=True):
            rows = by_layer.get(layer, samples.iloc[:0])
            if rows.empty:
                finish(ax, rows, (statuses or {}).get(layer, ""))
            else:
                s_curves(rows, fits, ax, layer=layer, shape=shape, fan=fan, fan_norm=norm)
            panel_title(ax, short[layer], panel_summary(fits, fan, layer, shape, plan))
        some_fan = norm is not None and fan is not None and bool(fan["layer"].astype(str).isin(layers).any())
        layout.put_legend(figure, legend(axes, shape), top)
        if some_fan:
            _colour_bar(figure, norm, top)
        has_r2 = any("R\u00b2" in ax.get_title("left") for ax in axes)
        layout.put_labels(figure, axes, X_LABEL, Y_LABEL, "R\u00b2 a/b: fit / best element-wise curve" if has_r2 else "")
    return figure


@dataclass(frozen=True)
class GridPlan:
    """Columns, panel height (in) and characters of text over a panel, by the number of panels."""

    columns: int
    height: float
    characters: int
    decimals: int
    interval: bool
    room: layout.Room

    @classmethod
    def of(cls, panels: int, columns: int | None = None) -> GridPlan:
        columns = columns or (panels if panels <= 4 else 4 if panels <= 12 else 5 if panels <= 36 else 6)
        height = {1: 2.6, 2: 2.2, 3: 1.65, 4: 1.25, 5: 0.95}.get(columns, 0.8)
        room = layout.Room(left=0.75 if panels <= columns else 0.6, gap_x=0.36 if columns <= 4 else 0.31, gap_y=0.52)
        pitch = (style.TWO_COLUMN - room.left) / columns
        return cls(columns, height, int(pitch / 0.066), 3 if columns <= 5 else 2, columns <= 2, room)


def panel_title(ax: Axes, name: str, line: str) -> None:
    """Name in bold and one line of numbers above the panel, from its tick labels on."""
    ax.set_title(line or " ", loc="left", size=style.SMALL, pad=2.5)
    ax.annotate(
        name,
        (0, 1),
        (0, 11.5),
        xycoords="axes fraction",
        textcoords="offset points",
        size=style.SMALL,
        weight="bold",
        ha="left",
        va="bottom",
        gid="name",
    )


def panel_summary(fits: pd.DataFrame | None, fan: pd.DataFrame | None, layer: str, shape: fitted.Shape, plan: GridPlan) -> str:
    """Alpha and R2 of a curve, or the range of the slopes of a fan."""
    lines = points.of_layer(fan, layer) if fan is not None else pd.DataFrame()
    if not lines.empty:
        low, high = float(lines["slope"].min()), float(lines["slope"].max())
        return f"slopes {style.number(low, 2)} to {style.number(high, 2)}" if len(lines) > 1 else f"slope {style.number(low)}"
    return fitted.summary(fitted.pick(fits, layer, shape.family), plan.decimals, plan.interval, plan.columns > 4)


def legend(axes: Sequence[Axes], shape: fitted.Shape) -> list[Line2D]:
    """An entry for each kind of mark that stands in any of the panels."""
    drawn = {artist.get_gid() for ax in axes for artist in [*ax.collections, *ax.lines]}
    colours = {(line.get_gid(), line.get_color()) for ax in axes for line in ax.lines}
    entries: list[tuple[bool, str, dict[str, Any]]] = [
        ("uniform" in drawn, "uniform sample", {"marker": "o", "color": style.POINT, "ls": "", "ms": 3.5}),
        ("tail" in drawn, "largest and smallest inputs", {"marker": "o", "color": style.TAIL, "ls": "", "ms": 3.5}),
        (("population", style.CURVE) in colours, f"{shape.family} fit", {"color": style.CURVE, "lw": 1.4}),
        (("range", style.CURVE) in colours, "fit weighing the range", {"color": style.CURVE, "lw": 0.9, "ls": (0, (3, 2))}),
        ("fan" in drawn, "one line per channel", {"color": style.STATUS_COLOURS["affine"], "lw": 0.8}),
        (("population", style.LINE) in colours, "line (no alpha)", {"color": style.LINE, "lw": 1.4}),
    ]
    return [Line2D([], [], label=label, **style_) for shown, label, style_ in entries if shown]


def _colour_bar(figure: Figure, norm: Normalize | None, top: float) -> None:
    """A horizontal bar at the right end of the legend line."""
    width, height = figure.get_size_inches()
    bar = figure.add_axes(((width - 1.3) / width, top - 0.1 / height, 1.0 / width, 0.07 / height))
    mappable = ScalarMappable(norm, style.DEPTH_MAP)
    figure.colorbar(mappable, cax=bar, orientation="horizontal")
    bar.set_xticks([])
    bar.minorticks_off()
    low, high = float(norm.vmin or 0), float(norm.vmax or 0)  # type: ignore[union-attr]
    middle = top - 0.065 / height
    figure.text(
        (width - 1.35) / width, middle, f"channel slope {style.number(low, 2)}", size=style.SMALL, ha="right", va="center"
    )
    figure.text((width - 0.27) / width, middle, style.number(high, 2), size=style.SMALL, ha="left", va="center")


def single() -> Axes:
    """One panel of one-column width."""
    _, axes, _ = layout.grid(1, 1, 2.3, width=style.ONE_COLUMN, legend_lines=0)
    axes[0].set_xlabel(X_LABEL)
    axes[0].set_ylabel(Y_LABEL)
    return axes[0]


def one_layer(samples: pd.DataFrame, layer: str | None) -> str:
    if layer is not None:
        return layer
    found = [str(name) for name in pd.unique(samples["layer"].astype(str))]
    if len(found) != 1:
        raise UsageError(f"samples of {len(found)} layers given; one panel shows one: choose it with layer=, or use s_curve_grid")
    return found[0]

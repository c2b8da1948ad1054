"""The S-curves: normalized against input of a layer, element by element, with the fitted curve over
it.

Figure 2 of DyT (https://arxiv.org/abs/2503.10622): output of the norm before its affine on y, its
input on x. A layer that is affine per channel is drawn as what it is, a fan of one line per
channel.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from probe.errors import UsageError
from probe.plots import fan as fans
from probe.plots import fitted, layout, points, style, ticks
from probe.plots.names import as_drawn
from probe.records import Status

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

    `samples`: the samples table of a layer (`layer` chooses where it holds several); `fits`: the
    fits table; `fan`: per channel slope, offset, low, high (x range) of affine layers. Solid: the
    fit to every element, pale where the curve is not established; dashed: the one that weighs the x
    range evenly, where that one is; dotted: where the extreme inputs begin.
    """
    layer = one_layer(samples, layer)
    shown = points.thin(points.of_layer(samples, layer), points_shown)
    lines = points.of_layer(fan, layer) if fan is not None else None
    row = fitted.pick(fits, layer, shape.family)
    affine = lines is not None and not lines.empty
    status = Status.AFFINE if affine else str(row["status"]) if row is not None else ""
    with style.theme():
        if ax is None:
            ax = single()
            panel_title(ax, layer, fitted.summary(row, interval=True) if not affine else "")
        if affine and lines is not None:
            fans.draw_fan(ax, lines, fan_norm)
            scatter(ax, shown[shown["stratum"] == "tail"], light=True)
        else:
            scatter(ax, shown)
            draw_curve(ax, shown, fits, layer, shape)
        finish(ax, shown, status)
    return ax


def scatter(ax: Axes, shown: pd.DataFrame, light: bool = False) -> None:
    """Points of the uniform rows under those of the tail; rasterized, so that an SVG stays
    small.
    """
    for stratum, colour, size, alpha in (
        ("uniform", style.POINT, 2.2, 0.55),
        ("tail", style.TAIL, 2.6, 0.6),
    ):
        part = shown[shown["stratum"] == stratum]
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
    mark_threshold(ax, shown.loc[shown["stratum"] == "tail", "input"].to_numpy(np.float64))


def mark_threshold(ax: Axes, extremes: fitted.Array) -> None:
    """Where the stored extremes begin on either side. They are a draw of their own, far denser than
    the uniform one, so the step in density there is none of the layer.
    """
    for arm, end in ((extremes[extremes < 0], np.max), (extremes[extremes > 0], np.min)):
        if arm.size:
            ax.axvline(
                float(end(arm)), color=style.TAIL, ls=":", lw=0.7, zorder=0.8, gid="threshold"
            )


def draw_curve(
    ax: Axes,
    shown: pd.DataFrame,
    fits: pd.DataFrame | None,
    layer: str,
    shape: fitted.Shape = fitted.TANH,
    tokens: str = "all",
) -> None:
    """The fitted curve over the x range shown; the range-weighted one dashed."""
    if shown.empty:
        return
    low, high = float(shown["input"].min()), float(shown["input"].max())
    for weighting, dashes in (("range", (0, (3, 2))), ("population", "-")):
        row = fitted.pick(fits, layer, shape.family, weighting=weighting, tokens=tokens)
        curved = math.isfinite(fitted.get(row, "alpha"))
        established = row is not None and str(row["status"]) == Status.CURVED
        if weighting == "range" and not (curved and established):
            continue
        shade = style.CURVE if established else style.PALE_CURVE
        x = fitted.abscissa(low, high, fitted.get(row, "alpha"))
        z = fitted.evaluate(row, x, shape)
        if z is not None:
            ax.plot(
                x,
                z,
                color=shade if curved else style.LINE,
                ls=dashes,
                lw=0.9 if weighting == "range" else 1.4,
                zorder=3,
                gid=weighting,
            )


def panel_title(ax: Axes, name: str, line: str) -> None:
    """Name in bold and one line of numbers above the panel, from its tick labels on."""
    ax.set_title(line or " ", loc="left", size=style.SMALL, pad=2.5)
    ax.annotate(
        as_drawn(name),
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


def finish(ax: Axes, shown: pd.DataFrame | None, status: str = "") -> None:
    """Limits by points and curves (a straight line may run out), ticks, zero cross, status; a panel
    without points says so.
    """
    if shown is None or shown.empty:
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
    if not any(artist.get_gid() == "fan" for artist in ax.collections):
        ax.set_xlim(*_padded(shown["input"]))
        curves = [
            np.asarray(line.get_ydata(), dtype=np.float64)
            for line in ax.lines
            if line.get_color() in (style.CURVE, style.PALE_CURVE)
        ]
        ax.set_ylim(*_padded(np.concatenate([shown["normalized"].to_numpy(np.float64), *curves])))
    ticks.few_ticks(ax)
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
            color=style.status_colour(status),
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )


def _padded(values: pd.Series | fitted.Array) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


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
        raise UsageError(
            f"samples of {len(found)} layers given; one panel shows one: choose it with layer=, or "
            "use s_curve_grid"
        )
    return found[0]

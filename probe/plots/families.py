"""How well each family describes each layer, along depth.

Above: R2 of the line, of the curve and the ceiling (the share of variance that any element-wise
curve could explain).
Below: what each family misses of that ceiling, on a log axis, because families differ in the third
decimal.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probe.plots import depth_axis, fitted, layout, style, ticks
from probe.records import Status, main_fits

FLOOR = 1e-5  # R2 differences under this are noise of the fit


def layer_fits(fits: pd.DataFrame) -> pd.DataFrame:
    """The rows of the figure: scope layer, every element once, all tokens, with an R2; not the
    pooled line of affine layers.
    """
    fits = main_fits(fits)
    keep = (fits["status"] != Status.AFFINE) & pd.to_numeric(fits["r2"]).notna()
    return fits[keep].sort_values("depth", kind="stable")


def families_by_depth(
    fits: pd.DataFrame, *, shape: str = "tanh", frame: layout.Frame | None = None
) -> Figure:
    """R2 along depth (above) and the distance of every family from the ceiling (below), each line
    named at its end.
    """
    table = layer_fits(fits)
    layers = list(dict.fromkeys(table["layer"].astype(str)))
    statuses = _statuses(table, layers, shape)
    with style.theme():
        figure, axes, top = depth_axis.stacked([1.5, 1.5], frame, right=0.95)
        quality(table, axes[0], layers=layers, shape=shape)
        shortfall(table, axes[1], layers=layers)
        depth_axis.depth_ticks(axes, layers)
        depth_axis.status_marks(axes[0], statuses)
        layout.put_legend(figure, depth_axis.status_legend(statuses), top)
    return figure


def quality(table: pd.DataFrame, ax: Axes, *, layers: list[str], shape: str = "tanh") -> Axes:
    """R2 of the line and of `shape` under the ceiling; the axis is zoomed to them."""
    r2, ceiling = (
        depth_axis.wide(table, layers, "r2"),
        depth_axis.wide(table, layers, "r2_ceiling").max(axis=1),
    )
    x = np.arange(len(layers))
    lines: list[tuple[str, np.ndarray, str]] = [("ceiling", ceiling.to_numpy(), style.MUTED)]
    lines += [
        (name, r2[name].to_numpy(), style.FAMILY_COLOURS.get(name, style.MUTED))
        for name in (shape, "linear")
        if name in r2
    ]
    for name, y, colour in lines:
        ax.plot(x, y, color=colour, marker="o", ms=2.5, lw=1.0, gid=name)
    low = min((float(np.nanmin(y)) for _, y, _ in lines if np.isfinite(y).any()), default=0.0)
    ax.set_ylim(low - 0.06 * max(1 - low, 1e-3), 1 + 0.02 * max(1 - low, 1e-3))
    if np.isfinite(ceiling).any():
        ax.fill_between(x, ceiling.to_numpy(), ax.get_ylim()[1], color="#f0f0f0", lw=0, zorder=0)
    ax.set_ylabel("R\u00b2", size=style.TEXT)
    _end_labels(ax, lines)
    return ax


def shortfall(table: pd.DataFrame, ax: Axes, *, layers: list[str]) -> Axes:
    """ceiling - R2 of each family, log axis; lower is better."""
    r2, ceiling = (
        depth_axis.wide(table, layers, "r2"),
        depth_axis.wide(table, layers, "r2_ceiling").max(axis=1),
    )
    x = np.arange(len(layers))
    lines = []
    for name in [family for family in style.FAMILY_COLOURS if family in r2] + [
        family for family in r2 if family not in style.FAMILY_COLOURS
    ]:
        y = np.clip((ceiling - r2[name]).to_numpy(np.float64), FLOOR, None)
        if np.isfinite(y).any():
            colour = style.FAMILY_COLOURS.get(name, style.MUTED)
            ax.plot(
                x,
                y,
                color=colour,
                marker="o",
                ms=2,
                lw=0.9,
                ls=(0, (2, 1.5)) if name.endswith("_shift") else "-",
                gid=name,
            )
            lines.append((name, y, colour))
    every = np.concatenate([y for _, y, _ in lines]) if lines else np.array([FLOOR])
    every = every[np.isfinite(every)]
    ticks.log_y(ax, float(every.min()) / 1.5, float(every.max()) * 1.5, most=5)
    ax.set_ylabel("ceiling \u2212 R\u00b2", size=style.TEXT)
    _end_labels(ax, lines)
    return ax


def _end_labels(ax: Axes, lines: list[tuple[str, np.ndarray, str]]) -> None:
    """The name of each line beside its last point, moved apart where they would touch."""
    ends = [
        (name, y[np.isfinite(y)][-1], colour) for name, y, colour in lines if np.isfinite(y).any()
    ]
    if not ends:
        return
    last = max(int(np.flatnonzero(np.isfinite(y))[-1]) for _, y, _ in lines if np.isfinite(y).any())
    to_axes = ax.transData + ax.transAxes.inverted()
    heights = [float(to_axes.transform((0, y))[1]) for _, y, _ in ends]
    box = ax.get_position()
    gap = 8.2 / 72 / (box.height * ax.figure.get_size_inches()[1])  # type: ignore[union-attr]
    for (name, y, colour), at in zip(ends, layout.spread(heights, gap, 0.02, 0.98), strict=True):
        ax.annotate(
            name,
            (last, y),
            (1.035, at),
            xycoords="data",
            textcoords="axes fraction",
            color=colour,
            size=style.SMALL,
            va="center",
            ha="left",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.4,
                "alpha": 0.6,
                "shrinkA": 0,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
            gid="family",
        )


def _statuses(table: pd.DataFrame, layers: list[str], shape: str) -> list[str]:
    rows = [fitted.pick(table, layer, shape) for layer in layers]
    return [str(row["status"]) if row is not None else "no fit" for row in rows]

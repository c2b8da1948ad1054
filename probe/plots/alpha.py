"""Alpha and slope of each layer against 1/std of its input.

Figures 8 and 9 of DyT (https://arxiv.org/abs/2503.10622) find the learned alpha near 1/std; here
both come from a fit to a trained network.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from probe.plots import layout, style, ticks
from probe.records import Status

X_LABEL = "1 / std of the layer input"


def alpha_vs_inverse_std(alphas: pd.DataFrame, *, frame: layout.Frame | None = None) -> Figure:
    """Alpha (left; only layers that have one) and slope (right; every layer) against 1/std,
    coloured by depth. Log axes.
    """
    table = drawable(alphas)
    curved = table["alpha"].notna().any()
    with style.theme():
        room = layout.Room(left=0.58, right=0.75, gap_x=0.55, title=0.05, bottom=0.42)
        width = style.TWO_COLUMN if curved else style.ONE_COLUMN
        figure, axes, top = layout.grid(
            2 if curved else 1, 2 if curved else 1, 2.4, width=width, room=room, frame=frame
        )
        if curved:
            alpha_panel(table, axes[0])
        slope_panel(table, axes[-1])
        layout.put_legend(figure, _legend(table), top)
        _depth_bar(figure, axes[-1], depth_norm(table))
    return figure


def alpha_panel(alphas: pd.DataFrame, ax: Axes) -> Axes:
    """Alpha with its 95 % interval, hollow where the curve is not established; layers without alpha
    are left out.
    """
    table = alphas[alphas["alpha"].notna()]
    low, high = (
        table[c].fillna(table["alpha"]).to_numpy(np.float64) for c in ("alpha_low", "alpha_high")
    )
    norm, established = depth_norm(alphas), (table["status"] == Status.CURVED).to_numpy()
    for marker, part in (("o", established), ("D", ~established)):
        if part.any():
            _points(ax, table[part], "alpha", low[part], high[part], norm, marker)
    return _axes(ax, table, [low, high], "\u03b1 of tanh (95 % interval)")


def slope_panel(alphas: pd.DataFrame, ax: Axes) -> Axes:
    """Slope at the centre; `affine` layers: median over their channels, bar from smallest to
    largest.
    """
    norm = depth_norm(alphas)
    ranges = []
    for marker, part in _by_marker(alphas):
        affine = marker == "s"
        low, high = (
            part[f"slope_{end}"].to_numpy(np.float64)
            if affine
            else part["slope"].to_numpy(np.float64)
            for end in ("min", "max")
        )
        _points(
            ax,
            part.assign(slope=part["slope_median"]) if affine else part,
            "slope",
            low,
            high,
            norm,
            marker,
        )
        ranges += [low, high]
    _axes(ax, alphas, ranges, "Slope at the centre")
    ends = np.array(ax.get_xlim())
    ax.plot(
        ends,
        ends,
        color=style.MUTED,
        lw=0.7,
        ls=(0, (4, 2)),
        zorder=0.5,
        scalex=False,
        scaley=False,
        gid="identity",
    )
    return ax


def drawable(alphas: pd.DataFrame) -> pd.DataFrame:
    """Rows with a positive 1/std and an alpha or a slope; the columns of affine layers are added
    where missing.
    """
    table = alphas.reindex(
        columns=[
            *alphas.columns,
            *(c for c in ("slope_min", "slope_median", "slope_max") if c not in alphas),
        ]
    )
    numbers = [
        "alpha",
        "alpha_low",
        "alpha_high",
        "slope",
        "slope_min",
        "slope_median",
        "slope_max",
        "inverse_std",
    ]
    table = table.assign(**{c: pd.to_numeric(table[c]).astype(np.float64) for c in numbers})
    has_slope = (table["slope"] > 0) | (table["slope_median"] > 0)
    return table[np.isfinite(table["inverse_std"]) & (table["inverse_std"] > 0) & has_slope]


def depth_norm(alphas: pd.DataFrame) -> Normalize:
    """Colour scale over the depths of the table."""
    depth = alphas["depth"].to_numpy(np.float64)
    return (
        Normalize(float(depth.min()), float(max(depth.max(), depth.min() + 1)))
        if depth.size
        else Normalize(0, 1)
    )


def _by_marker(alphas: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    status = alphas["status"].astype(str)
    parts = [
        ("o", alphas[status == Status.CURVED]),
        ("s", alphas[status == Status.AFFINE]),
        ("D", alphas[~status.isin([Status.CURVED, Status.AFFINE])]),
    ]
    return [(marker, part) for marker, part in parts if not part.empty]


def _points(
    ax: Axes,
    table: pd.DataFrame,
    column: str,
    low: np.ndarray,
    high: np.ndarray,
    norm: Normalize,
    marker: str,
) -> None:
    x, y = table["inverse_std"].to_numpy(np.float64), table[column].to_numpy(np.float64)
    ax.vlines(x, low, high, color=style.MUTED, lw=0.7, zorder=1, gid="interval")
    depth = table["depth"].to_numpy(np.float64)
    hollow = marker == "D"
    points = ax.scatter(
        x,
        y,
        c=depth,
        norm=norm,
        cmap=style.DEPTH_MAP,
        s=18 if hollow else 22,
        marker=marker,
        linewidths=0.4,
        edgecolors="white",
        zorder=2,
        gid=column,
    )
    if hollow:
        points.set_edgecolor([style.mapped(value, norm) for value in depth])
        points.set_linewidth(1.0)
        points.set_facecolor("white")
        points.set_array(None)


def _axes(ax: Axes, table: pd.DataFrame, ranges: list[np.ndarray], label: str) -> Axes:
    x, y = table["inverse_std"].to_numpy(np.float64), np.concatenate([*ranges, np.empty(0)])
    ticks.log_x(ax, *_limits(x))
    ticks.log_y(ax, *_limits(y))
    ax.tick_params(labelsize=style.SMALL)
    ax.set_xlabel(X_LABEL, size=style.TEXT)
    ax.set_ylabel(label, size=style.TEXT)
    return ax


def _limits(values: np.ndarray) -> tuple[float, float]:
    """A logarithmic range with room around the positive values, never narrower than a factor of
    two.
    """
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (float(values.min()), float(values.max())) if values.size else (1.0, 1.0)
    pad = max((high / low) ** 0.06, (2 / (high / low)) ** 0.5 if high / low < 2 else 1.0, 1.05)
    return low / pad, high * pad


def _legend(table: pd.DataFrame) -> list[Line2D]:
    labels = {
        "o": "curved",
        "D": "not established as curved",
        "s": "affine: median and range of channels",
    }
    marks = [
        Line2D(
            [],
            [],
            marker=marker,
            ls="",
            ms=4,
            color=style.MUTED,
            mfc="white" if marker == "D" else style.MUTED,
            label=labels[marker],
        )
        for marker, _ in _by_marker(table)
    ]
    return [
        *marks,
        Line2D([], [], color=style.MUTED, lw=0.7, ls=(0, (4, 2)), label="slope = 1/std"),
    ]


def _depth_bar(figure: Figure, ax: Axes, norm: Normalize) -> None:
    """Depth scale at the right of the last panel."""
    box, (width, _) = ax.get_position(), figure.get_size_inches()
    cax = figure.add_axes((box.x1 + 0.12 / width, box.y0, 0.09 / width, box.height))
    figure.colorbar(ScalarMappable(norm, style.DEPTH_MAP), cax=cax)
    cax.set_ylabel("depth (execution order)", size=style.SMALL)
    cax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    cax.tick_params(labelsize=style.SMALL, width=0.6, size=2.5)

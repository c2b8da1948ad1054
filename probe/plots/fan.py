"""The fan of lines of a layer that is affine per channel (BatchNorm with running statistics): one
line per channel, no curve.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from probe.formatting import number, typeset
from probe.plots import style


def draw_fan(ax: Axes, lines: pd.DataFrame, norm: Normalize | None = None) -> LineCollection:
    """One line per channel over the range of its inputs, coloured by its slope; the flat lines of
    many channels lie on top.
    """
    lines = lines[
        np.isfinite(lines["slope"]) & np.isfinite(lines["low"]) & np.isfinite(lines["high"])
    ].sort_values("slope", ascending=False, kind="stable")
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
    ax.margins(0.04)
    ax.autoscale_view()
    return collection


def slope_norm(fan: pd.DataFrame) -> Normalize:
    """A logarithmic colour scale over the slopes of all channels, outermost 2 % clipped."""
    slope = np.abs(fan["slope"].to_numpy(np.float64))
    slope = slope[np.isfinite(slope) & (slope > 0)]
    low, high = (float(v) for v in np.quantile(slope, [0.02, 0.98])) if slope.size else (1.0, 1.0)
    return LogNorm(low, max(low * 1.01, high), clip=True)


def colour_bar(figure: Figure, norm: Normalize | None, top: float) -> None:
    """A horizontal bar at the right end of a line whose upper edge is `top` inches up; none where
    all slopes are about equal.
    """
    low, high = (float(norm.vmin or 0), float(norm.vmax or 0)) if norm is not None else (0.0, 0.0)
    if norm is None or number(low, 2) == number(high, 2):
        return
    width, height = figure.get_size_inches()
    bar = figure.add_axes(((width - 1.3) / width, (top - 0.1) / height, 0.9 / width, 0.07 / height))
    figure.colorbar(ScalarMappable(norm, style.DEPTH_MAP), cax=bar, orientation="horizontal")
    bar.set_xticks([])
    bar.minorticks_off()
    middle = (top - 0.07) / height
    words: dict[str, Any] = {"size": style.SMALL, "va": "center", "gid": "scale"}
    left, right = typeset(f"channel slope {number(low, 2)}"), typeset(number(high, 2))
    figure.text((width - 1.35) / width, middle, left, ha="right", **words)
    figure.text((width - 0.36) / width, middle, right, ha="left", **words)

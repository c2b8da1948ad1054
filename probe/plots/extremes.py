"""How much of a layer leaves the linear range, and how large its inputs get, along depth.

`beyond_linear`: share of elements where the fitted slope is under half the central one;
`saturation`: share with |alpha x| > 2. Channels of massive activations (|x| > 100 and > 1000 times
the layer's median; Sun et al. 2024, https://arxiv.org/abs/2402.17762) are counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probe.plots import depth_axis, layout, style, ticks
from probe.records import Status

SHARES = {
    "beyond_linear": ("beyond linear range", style.CURVE, "o"),
    "saturation": ("saturated, |\u03b1x| > 2", "#0072b2", "s"),
}


def extremes_by_depth(alphas: pd.DataFrame, *, frame: layout.Frame | None = None) -> Figure:
    """Shares of elements (above; only where a layer has a curve) and largest |input| beside its std
    (below), along depth.
    """
    table = alphas.sort_values("depth", kind="stable")
    layers = [str(name) for name in table["layer"]]
    with style.theme():
        has_shares = any(_finite(table, name).any() for name in SHARES)
        figure, axes, top = depth_axis.stacked([1.4] * (1 + has_shares), frame, right=0.15)
        if has_shares:
            shares(table, axes[0])
        largest(table, axes[-1])
        depth_axis.depth_ticks(axes, layers)
        layout.put_legend(figure, _legend(axes), top)
    return figure


def shares(table: pd.DataFrame, ax: Axes) -> Axes:
    """Shares in percent of all elements, log axis; hollow where the curve is not established."""
    seen, doubtful = [], (table["status"] != Status.CURVED).to_numpy()
    for name, (_, colour, marker) in SHARES.items():
        y = 100 * _numbers(table, name)
        y[~(y > 0)] = np.nan
        x = np.arange(len(y))
        ax.plot(x, y, color=colour, marker=marker, ms=3, lw=0.8, gid=name)
        ax.plot(
            x[doubtful],
            y[doubtful],
            ls="",
            marker=marker,
            ms=3,
            color=colour,
            mfc="white",
            gid="not established",
        )
        seen.append(y[np.isfinite(y)])
    every = np.concatenate(seen)
    low, high = (float(every.min()), float(every.max())) if every.size else (0.1, 10.0)
    ticks.log_y(ax, low / 1.6, min(high * 1.6, 100), most=5)
    ax.set_ylabel("share of elements (%)", size=style.TEXT)
    return ax


def largest(table: pd.DataFrame, ax: Axes) -> Axes:
    """Largest |input| and the std of the input, log axis; the number of massive channels is written
    over the point.
    """
    x = np.arange(len(table))
    seen = []
    for name, colour, marker in (
        ("max_abs_input", style.LINE, "o"),
        ("input_std", style.MUTED, "v"),
    ):
        y = _numbers(table, name)
        y[~(y > 0)] = np.nan
        ax.plot(x, y, color=colour, marker=marker, ms=3, lw=0.8, gid=name)
        seen.append(y[np.isfinite(y)])
    every = np.concatenate(seen)
    low, high = (float(every.min()), float(every.max())) if every.size else (1.0, 1.0)
    ticks.log_y(ax, low / 1.5, high * 2.5, most=5)
    massive, top = _numbers(table, "massive_channels"), _numbers(table, "max_abs_input")
    for i in np.flatnonzero(massive > 0):
        ax.annotate(
            f"{massive[i]:.0f}",
            (i, top[i]),
            (0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            size=style.SMALL,
            color=style.CURVE,
            gid="massive",
        )
    ax.set_ylabel("input (activation units)", size=style.TEXT)
    return ax


def _legend(axes: list[Axes]) -> list[Line2D]:
    lines = [line for ax in axes for line in ax.lines]
    drawn = {line.get_gid() for line in lines}
    words = {
        **SHARES,
        "max_abs_input": ("largest |input|", style.LINE, "o"),
        "input_std": ("input std", style.MUTED, "v"),
    }
    entries = [
        Line2D([], [], color=c, marker=m, ms=3, lw=0.8, label=label)
        for gid, (label, c, m) in words.items()
        if gid in drawn
    ]
    hollow = [line for line in lines if line.get_gid() == "not established"]
    if any(np.size(line.get_xdata()) for line in hollow):
        entries.append(_mark("o", style.MUTED, "not established", ms=3, mfc="white"))
    if any(text.get_gid() == "massive" for ax in axes for text in ax.texts):
        entries.append(_mark("$n$", style.CURVE, "massive channels", ms=5))
    return entries


def _mark(marker: str, color: str, label: str, **look: Any) -> Line2D:
    return Line2D([], [], ls="", marker=marker, color=color, label=label, **look)


def _numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    if column not in table:
        return np.full(len(table), np.nan)
    return pd.to_numeric(table[column]).to_numpy(np.float64, na_value=np.nan).copy()


def _finite(table: pd.DataFrame, column: str) -> np.ndarray:
    return np.isfinite(_numbers(table, column))

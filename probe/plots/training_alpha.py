"""The alpha that a layer learns beside one over the standard deviation of its input.

Figures 8 and 9 of DyT (https://arxiv.org/abs/2503.10622): over a training alpha follows 1/std, and
at its end the two lie near each other along all layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probe.plots import by_epoch, layout, names, style, ticks
from probe.plots.training import of_quantity

ALPHA, INVERSE = style.CURVE, "#0072b2"
PANELS = 4


def alpha_and_inverse_std(norms: pd.DataFrame) -> pd.DataFrame:
    """epoch, layer, depth, alpha, inverse_std of the layers that have both."""
    alpha, inverse = (of_quantity(norms, name) for name in ("alpha", "inverse_std"))
    return alpha.rename(columns={"value": "alpha"}).merge(
        inverse.rename(columns={"value": "inverse_std"}).drop(columns="depth"),
        on=["epoch", "layer"],
    )


def final_alpha(norms: pd.DataFrame, *, frame: layout.Frame | None = None) -> Figure:
    """Alpha against 1/std of the layer's input after the last epoch, log axes, coloured by depth;
    dashed: equal.
    """
    both = alpha_and_inverse_std(norms)
    last = both[both["epoch"] == both["epoch"].max()]
    with style.theme():
        room = layout.Room(left=0.58, right=0.75, title=0.05, bottom=0.42)
        figure, (ax,), top = layout.grid(1, 1, 2.5, style.ONE_COLUMN, room, frame)
        against(last, ax)
        by_epoch.bar(figure, ax, by_epoch.scale(last["depth"].to_list()), "depth (execution order)")
        layout.put_legend(figure, [_line(style.MUTED, "\u03b1 = 1/std", dashes=(0, (4, 2)))], top)
    return figure


def against(last: pd.DataFrame, ax: Axes) -> Axes:
    """One point per layer. A layer of negative alpha is drawn at its amount, hollow: tanh is odd,
    so a sign of the weight says the same.
    """
    x, alpha = last["inverse_std"].to_numpy(np.float64), last["alpha"].to_numpy(np.float64)
    y, depth = np.abs(alpha), last["depth"].to_numpy(np.float64)
    kept = (x > 0) & (y > 0)
    cmap, norm = by_epoch.colours(), by_epoch.scale(depth.tolist())
    for chosen, hollow in ((kept & (alpha > 0), False), (kept & (alpha < 0), True)):
        colours = cmap(norm(depth[chosen]))
        ax.scatter(
            x[chosen],
            y[chosen],
            s=20,
            facecolors="white" if hollow else colours,
            edgecolors=colours if hollow else "white",
            linewidths=1.0 if hollow else 0.4,
            zorder=2,
            gid="negative" if hollow else "alpha",
        )
    ends = [float(pick(part[kept])) for part in (x, y) for pick in (np.min, np.max)] or [0.1, 1.0]
    low, high = min(ends) / 1.25, max(ends) * 1.25
    ticks.log_x(ax, low, high)
    ticks.log_y(ax, low, high)
    ax.plot(
        [low, high],
        [low, high],
        color=style.MUTED,
        lw=0.7,
        ls=(0, (4, 2)),
        zorder=0.5,
        gid="identity",
    )
    ax.tick_params(labelsize=style.SMALL)
    ax.set_xlabel("1 / std of the layer input", size=style.TEXT)
    ax.set_ylabel("\u03b1 of the layer, last epoch", size=style.TEXT)
    return ax


def alpha_with_inverse_std(
    norms: pd.DataFrame, layers: Sequence[str], *, frame: layout.Frame | None = None
) -> Figure:
    """Alpha and 1/std of a few layers over the epochs, a panel per layer."""
    both = alpha_and_inverse_std(norms)
    with style.theme():
        columns = min(len(layers), PANELS)
        room = layout.Room(left=0.5, right=0.12, gap_x=0.38, gap_y=0.42, title=0.2, bottom=0.42)
        figure, axes, top = layout.grid(len(layers), columns, 1.35, room=room, frame=frame)
        short = names.short_names(layers, 22)
        for ax, layer in zip(axes, layers, strict=True):
            _pair(both[both["layer"] == layer].sort_values("epoch"), ax)
            ax.set_title(short[layer], loc="left", size=style.SMALL, weight="bold", pad=2.5)
        layout.put_labels(figure, axes, "Epoch", "\u03b1, 1/std")
        layout.put_legend(
            figure,
            [_line(ALPHA, "\u03b1 of the layer"), _line(INVERSE, "1/std of its input")],
            top,
        )
    return figure


def _pair(rows: pd.DataFrame, ax: Axes) -> None:
    x = rows["epoch"].to_numpy(np.float64)
    for column, colour in (("alpha", ALPHA), ("inverse_std", INVERSE)):
        y = rows[column].to_numpy(np.float64)
        ax.plot(x, y, color=colour, lw=1.1, marker="o" if len(x) <= 40 else "", ms=2, gid=column)
    by_epoch.epoch_axis(ax, x.tolist(), label=False)
    ax.locator_params(axis="x", nbins=4)
    ax.locator_params(axis="y", nbins=4)
    ax.tick_params(labelsize=style.SMALL)


def _line(colour: str, label: str, dashes: object = "-") -> Line2D:
    return Line2D([], [], color=colour, lw=1.1, ls=dashes, label=label)  # type: ignore[arg-type]

"""Lines over a training: one per layer, coloured by depth, a few of them named at their ends.

53 layers have no room for a legend; their place in the network is a colour with a scale, and the
lines that a reader asks for first (highest, lowest, some between) carry their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from probe.plots import layout, names, style

NAMED = 5  # lines with their name at the end
PALE = 0.35  # opacity of what is not established
NAME_CHARACTERS = 15
DOTTED = 15  # epochs; of more, dots would hide the lines


def colours() -> Colormap:
    """The sequential map without its palest end, which a thin line on white would lose."""
    shades = mpl.colormaps[style.DEPTH_MAP](np.linspace(0, 0.88, 256))
    return LinearSegmentedColormap.from_list("by_epoch", shades)


def scale(values: Sequence[float]) -> Normalize:
    """Colour scale over these values, one step wide at least."""
    low, high = (min(values), max(values)) if len(values) else (0.0, 1.0)
    return Normalize(float(low), float(max(high, low + 1)))


def panel(
    frame: layout.Frame | None, height: float = 2.5, legend_lines: int = 0
) -> tuple[Figure, Axes, float]:
    """One wide panel with room for names and a colour bar at its right."""
    room = layout.Room(left=0.62, right=1.75, top=0.1, title=0.08, bottom=0.42)
    figure, (ax,), top = layout.grid(
        1, 1, height, style.TWO_COLUMN, room, frame, legend_lines=legend_lines
    )
    return figure, ax, top


def draw_lines(table: pd.DataFrame, value: str, ax: Axes, *, solid: str | None = None) -> None:
    """One line per layer over its epochs. `table`: epoch, layer, depth and the column `value`;
    missing values leave gaps. solid: column that is true where a value is established; the others
    are pale, and hollow where there are dots.
    """
    cmap, norm = colours(), scale(table["depth"].to_list())
    dotted = table["epoch"].nunique() <= DOTTED
    for layer, rows in table.sort_values("epoch", kind="stable").groupby("layer", sort=False):
        x, y = rows["epoch"].to_numpy(np.float64), numbers(rows, value)
        colour = cmap(norm(float(rows["depth"].iloc[0])))
        sure = np.ones(len(y), bool) if solid is None else rows[solid].to_numpy(bool)
        if not sure.all():
            ax.plot(x, y, color=colour, lw=1.0, alpha=PALE, zorder=2, gid="not established")
        ax.plot(x, np.where(sure, y, np.nan), color=colour, lw=1.0, zorder=2.2, gid=f"line {layer}")
        for chosen, face in ((sure, colour), (~sure, "white")):
            if dotted and chosen.any():
                ax.plot(
                    x[chosen],
                    y[chosen],
                    ls="",
                    marker="o",
                    ms=2.6,
                    color=colour,
                    mfc=face,
                    mew=0.6,
                    zorder=2.5,
                    gid="filled" if face is colour else "hollow",
                )
    ax.tick_params(labelsize=style.SMALL)


def epoch_axis(ax: Axes, epochs: Sequence[float], unit: str = "epoch", label: bool = True) -> None:
    """Whole numbers below, with a little room beside the first and the last."""
    low, high = (min(epochs), max(epochs)) if len(epochs) else (0, 1)
    room = 0.02 * (high - low) or 0.5
    ax.set_xlim(low - room, high + room / 2)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if label:
        ax.set_xlabel(unit.capitalize(), size=style.TEXT)


def name_ends(ax: Axes, table: pd.DataFrame, value: str, *, count: int = NAMED) -> None:
    """Names at the right of a few lines: the highest, the lowest and some between, by their last
    value. Call it when the limits of the axis stand.
    """
    ends = last_values(table, value)
    if ends.empty:
        return
    chosen = ends.iloc[np.unique(np.linspace(0, len(ends) - 1, min(count, len(ends))).round())]
    short = names.short_names([str(name) for name in ends.index], NAME_CHARACTERS)
    cmap, norm = colours(), scale(table["depth"].to_list())
    depths = table.drop_duplicates("layer").set_index("layer")["depth"]
    heights = [_height(ax, float(y)) for y in chosen]
    inches = ax.get_position().height * ax.figure.get_size_inches()[1]  # type: ignore[union-attr]
    placed = layout.spread(heights, 0.125 / inches, 0.02, 0.98)
    for (layer, _), at, to in zip(chosen.items(), heights, placed, strict=True):
        ax.annotate(
            short[str(layer)],
            (1, at),
            (1.035, to),
            xycoords="axes fraction",
            textcoords="axes fraction",
            size=style.SMALL,
            color=cmap(norm(float(depths[layer]))),
            va="center",
            ha="left",
            arrowprops={
                "arrowstyle": "-",
                "lw": 0.4,
                "color": style.MUTED,
                "shrinkA": 1,
                "shrinkB": 0,
            },
            gid="name",
        )


def last_values(table: pd.DataFrame, value: str) -> pd.Series:
    """The last finite value of each layer, rising."""
    rows = table.assign(value=numbers(table, value))
    rows = rows[np.isfinite(rows["value"])].sort_values("epoch", kind="stable")
    return rows.groupby("layer", sort=False)["value"].last().sort_values(kind="stable")


def _height(ax: Axes, value: float) -> float:
    """A value of the y axis as a share of its length, inside of it."""
    _, y = ax.transAxes.inverted().transform(ax.transData.transform((ax.get_xlim()[1], value)))
    return float(np.clip(y, 0, 1))


def depth_bar(figure: Figure, ax: Axes, depths: Sequence[float]) -> None:
    """Depth at the far right of the panel."""
    bar(figure, ax, scale(depths), "depth (execution order)", offset=1.15)


def bar(
    figure: Figure, ax: Axes, norm: Normalize, label: str, offset: float = 0.12, whole: bool = True
) -> None:
    """A colour bar `offset` inches right of the panel."""
    box, (width, _) = ax.get_position(), figure.get_size_inches()
    cax = figure.add_axes((box.x1 + offset / width, box.y0, 0.09 / width, box.height))
    figure.colorbar(ScalarMappable(norm, colours()), cax=cax)
    cax.set_ylabel(label, size=style.SMALL)
    cax.yaxis.set_major_locator(MaxNLocator(5, integer=whole))
    cax.tick_params(labelsize=style.SMALL, width=0.6, size=2.5)


def numbers(table: pd.DataFrame | Mapping[str, pd.Series], column: str) -> np.ndarray:
    return pd.to_numeric(table[column]).to_numpy(np.float64, na_value=np.nan).copy()

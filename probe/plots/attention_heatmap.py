"""Mean attention distance of every head of every layer as a heat map, with its numbers where the
cells hold them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from probe.plots import attention_heads as shared
from probe.plots import layout, style

ROW = 0.16  # inches of height of a head
CHARACTER = 0.062  # inches of width of a digit of 7 pt


def distance_heatmap(
    table: pd.DataFrame, *, unit: str = "px", frame: layout.Frame | None = None
) -> Figure:
    """Layers along, heads upwards; `unit`: px, patches or uniform. A head that a layer does not
    have stays blank.
    """
    table = shared.with_distance(table, unit)
    layers, heads = shared.layer_names(table), shared.heads_of([table])
    width = style.ONE_COLUMN if len(layers) <= 8 else style.TWO_COLUMN
    with style.theme():
        room = layout.Room(left=0.5, right=0.72, title=0.05, bottom=shared.name_room(table))
        height = float(np.clip(ROW * heads, 1.5, 4.0))
        figure, axes, _ = layout.grid(
            1, 1, height, width=width, room=room, frame=frame, legend_lines=0
        )
        distance_cells(table, axes[0], unit=unit)
        axes[0].set_xlabel("")
        shared.name_ticks(axes, table)
        axes[0].set_xlim(-0.5, len(layers) - 0.5)
        _bar(
            figure,
            axes[0],
            _norm(table),
            shared.words_of(unit),
        )
    return figure


def distance_cells(table: pd.DataFrame, ax: Axes | None = None, *, unit: str = "px") -> Axes:
    """The panel of `distance_heatmap`, with layer indices below."""
    table = shared.with_distance(table, unit)
    values, norm = _matrix(table), _norm(table)
    heads, layers = values.shape
    with style.theme():
        ax = ax if ax is not None else shared.one_panel()
        x, y = np.arange(layers + 1) - 0.5, np.arange(heads + 1) + 0.5
        ax.pcolormesh(
            x,
            y,
            np.ma.masked_invalid(values),
            cmap=style.DEPTH_MAP,
            norm=norm,
            ec="white",
            lw=0.4,
            gid="heat",
        )
        shared.index_ticks(ax, layers)
        ax.set(xlim=(-0.5, layers - 0.5), ylim=(0.5, heads + 0.5))
        step = next(s for s in (1, 2, 4, 8, 16, 32, 1000) if heads / s <= 12)
        ax.set_yticks([h for h in range(1, heads + 1) if h % step == 0 or h == 1 < step])
        ax.tick_params(labelsize=style.SMALL)
        ax.set_xlabel(shared.X_LABEL, size=style.TEXT)
        ax.set_ylabel("Head", size=style.TEXT)
        _numbers(ax, values, norm)
    return ax


def _matrix(table: pd.DataFrame) -> shared.Array:
    """(heads, layers), NaN where a layer has no such head."""
    values = np.full((shared.heads_of([table]), int(table["x"].max()) + 1), np.nan)
    values[table["head"].to_numpy(int), table["x"].to_numpy(int)] = table["distance"].to_numpy()
    return values


def _norm(table: pd.DataFrame) -> Normalize:
    values = table["distance"].to_numpy(np.float64)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    return Normalize(low, high if high > low else low + 1)


def _numbers(ax: Axes, values: shared.Array, norm: Normalize) -> None:
    """The value in each cell, in as many digits as fit; none where the cells are too small."""
    box, (width, height) = ax.get_position(), ax.figure.get_size_inches()  # type: ignore[union-attr]
    cell_width, cell_height = (
        box.width * width / values.shape[1],
        box.height * height / values.shape[0],
    )
    finite = values[np.isfinite(values)]
    for decimals in (1, 0):
        longest = max((len(f"{v:.{decimals}f}") for v in finite), default=0)
        if (
            longest * CHARACTER + 0.02 <= cell_width
            and cell_height >= 0.13
            and (decimals == 0 or finite.max() < 100)
        ):
            break
    else:
        return
    for head, x in np.argwhere(np.isfinite(values)):
        value = values[head, x]
        dark = float(norm(value)) < 0.6
        ax.text(
            x,
            head + 1,
            f"{value:.{decimals}f}",
            size=style.SMALL,
            ha="center",
            va="center_baseline",
            color="white" if dark else "black",
            gid="value",
        )


def _bar(figure: Figure, ax: Axes, norm: Normalize, label: str) -> None:
    box, (width, _) = ax.get_position(), figure.get_size_inches()
    cax = figure.add_axes((box.x1 + 0.12 / width, box.y0, 0.1 / width, box.height), label="scale")
    figure.colorbar(ScalarMappable(norm, style.DEPTH_MAP), cax=cax)
    cax.set_ylabel(label, size=style.SMALL)
    cax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], min_n_ticks=4))
    cax.tick_params(labelsize=style.SMALL, width=0.6, size=2.5)

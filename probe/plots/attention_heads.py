"""What the figures of attention heads share: the table in order, one colour per head with its key,
and marks along depth.

Head 1 of a figure is `head` 0 of the table, as in the papers (https://arxiv.org/abs/2112.02624 and
others).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from probe.errors import UsageError
from probe.plots import depth_axis, layout, names, style

Array = NDArray[np.float64]
COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#f0e442",
    "#000000",
)  # Okabe and Ito
NAME_WIDTH = 15  # characters of depth_axis
KEY_ROOM = 0.68  # inches at the right of the last panel
# unit -> the columns it is made of, and the words on the axis
UNITS = {
    "px": (("distance_px",), "Mean attention distance (px)"),
    "patches": (("distance_patches",), "Mean attention distance (patches)"),
    "uniform": (("distance_px", "uniform_px"), "Mean attention distance / uniform"),
}
UNIFORM: dict[str, Any] = {"color": style.LINE, "lw": 0.9, "ls": (0, (4, 2))}
MEAN: dict[str, Any] = {"color": style.CURVE, "lw": 0.9}
X_LABEL = "Attention layer (execution order)"


def ordered(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows by depth and head, numbers as float64, and column `x`: the index of the layer in
    execution order.

    Raises UsageError for a table without rows or without one of `columns`.
    """
    missing = [name for name in ("layer", "head", *columns) if name not in table]
    if missing:
        raise UsageError(
            f"the table has no column {', '.join(missing)}; a table of attention rows, one per "
            "layer and head, is needed"
        )
    if table.empty:
        raise UsageError(
            "the table of attention heads has no row; a model without readable attention has no "
            "such figure"
        )
    result = table.assign(
        **{name: pd.to_numeric(table[name]).astype(np.float64) for name in columns}
    )
    if "depth" in result:
        result = result.sort_values(["depth", "head"], kind="stable")
    return result.assign(x=pd.factorize(result["layer"].astype(str))[0]).sort_values(
        ["x", "head"], kind="stable"
    )


def with_distance(table: pd.DataFrame, unit: str) -> pd.DataFrame:
    """`ordered`, with the distance of each head in `unit` as column `distance`."""
    columns, _ = _unit(unit)
    table = ordered(table, *columns)
    values = table[columns[0]]
    return table.assign(distance=values if len(columns) == 1 else values / table[columns[1]])


def words_of(unit: str) -> str:
    """What stands at an axis of distances: `Mean attention distance (px)`."""
    return _unit(unit)[1]


def common_unit(tables: Sequence[pd.DataFrame]) -> str:
    """Pixels for runs on images of one size; relative to uniform attention where sizes differ and
    every table says what uniform attention gives.
    """
    sizes = {size for table in tables if (size := _pixels_covered(table)) is not None}
    return "uniform" if len(sizes) > 1 and all("uniform_px" in t for t in tables) else "px"


def _pixels_covered(table: pd.DataFrame) -> tuple[float, float] | None:
    """(height, width) under the finest token grid: the size of the image, but for an edge that
    holds no whole patch. None where the table does not say.
    """
    if not {"grid", "token_stride"} <= set(table) or table.empty:
        return None
    strides = pd.to_numeric(table["token_stride"]).astype(np.float64)
    if strides.isna().all():
        return None
    finest = int(strides.to_numpy().argmin())
    rows, columns = (int(side) for side in str(table["grid"].iloc[finest]).split("x"))
    stride = float(strides.iloc[finest])
    return round(rows * stride, 3), round(columns * stride, 3)


def _unit(unit: str) -> tuple[tuple[str, ...], str]:
    if unit not in UNITS:
        raise UsageError(f"unit {unit!r} is unknown; known: {', '.join(UNITS)}")
    return UNITS[unit]


def layer_names(table: pd.DataFrame) -> list[str]:
    """One name per `x`, without the last words that all share (`blocks.3.attn` is `blocks.3`)."""
    words = [name.split(".") for name in dict.fromkeys(table["layer"].astype(str))]
    while (
        len(words) > 1
        and all(len(path) > 1 for path in words)
        and len({path[-1] for path in words}) == 1
    ):
        words = [path[:-1] for path in words]
    return [".".join(path) for path in words]


def per_layer(table: pd.DataFrame, values: pd.Series) -> Array:
    """Mean of `values` over the heads of each layer."""
    return values.groupby(table["x"]).mean().to_numpy(np.float64)


def uniform_distance(table: pd.DataFrame, unit: str) -> Array:
    """Distance under uniform attention, per layer; NaN where the table has none."""
    known = "uniform_px" in table
    return per_layer(
        table, _in_unit(table, "uniform_px", unit) if known else pd.Series(np.nan, table.index)
    )


def spread_of_images(table: pd.DataFrame, unit: str) -> Array:
    """Standard deviation of the distance over images, per row; NaN where the table has none."""
    if "distance_px_std" not in table:
        return np.full(len(table), np.nan)
    return _in_unit(table, "distance_px_std", unit).to_numpy(np.float64)


def _in_unit(table: pd.DataFrame, column: str, unit: str) -> pd.Series:
    pixels = pd.to_numeric(table[column]).astype(np.float64)
    if unit == "px":
        return pixels
    by = {"patches": "token_stride", "uniform": "uniform_px"}[unit]
    return pixels / pd.to_numeric(table[by]).astype(np.float64)


def heads_of(tables: Sequence[pd.DataFrame]) -> int:
    """Largest number of heads in a layer."""
    return max(int(table["head"].max()) + 1 for table in tables)


def colours(heads: int) -> list[str]:
    """One colour per head: discrete ones up to 8, a sequential map by head index beyond."""
    return list(COLOURS[:heads]) if heads <= len(COLOURS) else style.ramp(heads, 0.0, 0.95)


def dots(ax: Axes, table: pd.DataFrame, column: str, heads: int) -> None:
    """One dot per layer and head; the heads of a layer stand beside each other in their order, so
    that none hides another.
    """
    width = ax.get_position().width * ax.figure.get_size_inches()[0]  # type: ignore[union-attr]
    pitch = 72 * width / (int(table["x"].max()) + 1)
    size = float(np.clip(pitch / 2.6, 1.6, 4.2))
    palette = colours(heads)
    for head, part in table.groupby("head"):
        y = part[column].to_numpy(np.float64)
        in_layer = table.groupby("x")["head"].transform("size").loc[part.index].to_numpy(np.float64)
        step = np.minimum(0.62 / np.maximum(in_layer - 1, 1), 0.08)
        x = part["x"].to_numpy(np.float64) + (float(head) - (in_layer - 1) / 2) * step
        ax.scatter(
            x,
            y,
            s=size**2,
            c=[palette[int(head)]],
            linewidths=0.25,
            edgecolors="#333333",
            zorder=3,
            gid=f"head {int(head)}",
        )


def uniform_line(ax: Axes, values: Array) -> None:
    """A dashed step along depth at what uniform attention would give."""
    for value, run in groupby(range(len(values)), key=lambda i: round(float(values[i]), 6)):
        if np.isfinite(value):
            where = list(run)
            ax.plot(
                [where[0] - 0.5, where[-1] + 0.5],
                [value, value],
                **UNIFORM,
                zorder=2,
                gid="uniform",
            )


def stages(table: pd.DataFrame) -> list[tuple[int, int, str]]:
    """Runs of layers with the same token grid: first and last x, and the grid."""
    if "grid" not in table:
        return []
    grids = table.drop_duplicates("x")["grid"].astype(str).tolist()
    runs = [(grid, list(run)) for grid, run in groupby(range(len(grids)), key=lambda i: grids[i])]
    return [(run[0], run[-1], grid.replace("x", "\u00d7")) for grid, run in runs]


def stage_lines(ax: Axes, table: pd.DataFrame) -> None:
    """A faint upright line where the token grid changes."""
    for first, _, _ in stages(table)[1:]:
        ax.axvline(first - 0.5, color="#b0b0b0", lw=0.6, zorder=0.5, gid="stage")


def index_ticks(ax: Axes, count: int, first: int = 0) -> None:
    """Numbers 1 to `count` at x = `first` and on, as many as stand apart."""
    width = ax.get_position().width * ax.figure.get_size_inches()[0]  # type: ignore[union-attr]
    step = next(
        s for s in (1, 2, 3, 4, 5, 6, 8, 10, 12, 20, 50, 100, 1000) if count / s * 0.21 <= width
    )
    numbers = range(1, count + 1, 2) if step == 2 else [1, *range(step, count + 1, step)]
    ax.set_xlim(first - 0.6, first + count - 0.4)
    ticks = sorted(set(numbers))
    ax.set_xticks([first + i - 1 for i in ticks], [str(i) for i in ticks], size=style.SMALL)


def value_axis(ax: Axes, values: Array, label: str) -> None:
    """A y axis from 0 with room above all `values`: one from 115 to 118 px makes noise look like
    structure.
    """
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    low, high = min(low, 0.0), max(high, 0.0)
    pad = 0.05 * ((high - low) or 1.0)
    ax.set_ylim(low if low == 0 else low - pad, high + pad)
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], min_n_ticks=4))
    ax.tick_params(labelsize=style.SMALL)
    ax.set_ylabel(label, size=style.TEXT)


def key(figure: Figure, last: Axes, heads: int) -> None:
    """Which colour is which head: a list at the right of the last panel up to 8 heads, a scale
    beyond.
    """
    box, (width, _) = last.get_position(), figure.get_size_inches()
    if heads <= len(COLOURS):
        marks = [
            Line2D(
                [],
                [],
                ls="",
                marker="o",
                ms=4,
                mec="#333333",
                mew=0.25,
                color=c,
                label=f"Head {i + 1}",
            )
            for i, c in enumerate(colours(heads))
        ]
        figure.legend(
            handles=marks,
            loc="center left",
            bbox_to_anchor=(box.x1 + 0.03 / width, (box.y0 + box.y1) / 2),
            handletextpad=0.1,
            labelspacing=0.25,
            borderpad=0,
            fontsize=style.SMALL,
        )
        return
    cax = figure.add_axes((box.x1 + 0.14 / width, box.y0, 0.09 / width, box.height), label="heads")
    scale = ScalarMappable(
        BoundaryNorm(np.arange(heads + 1) + 0.5, heads), ListedColormap(colours(heads))
    )
    bar = figure.colorbar(scale, cax=cax)
    bar.set_ticks(
        sorted({1, *range(4 if heads <= 24 else 10, heads + 1, 4 if heads <= 24 else 10), heads}),
        minor=False,
    )
    bar.ax.minorticks_off()
    cax.set_ylabel("Head", size=style.SMALL)
    cax.tick_params(labelsize=style.SMALL, width=0.6, size=2)


def entries(axes: Sequence[Axes], uniform: str = "uniform attention") -> list[Line2D]:
    """Legend entries of the lines that the panels hold."""
    drawn = {line.get_gid() for ax in axes for line in ax.lines}
    words: dict[str, dict[str, Any]] = {
        "mean": {**MEAN, "label": "mean of the heads"},
        "uniform": {**UNIFORM, "label": uniform},
        "stage": {
            "color": "#b0b0b0",
            "ls": "",
            "marker": "|",
            "ms": 8,
            "label": "token grid changes",
        },
    }
    return [Line2D([], [], **options) for gid, options in words.items() if gid in drawn]


def depth_width(table: pd.DataFrame) -> float:
    """Inches of a figure along depth: one column of a page where the dots have room in it."""
    return (
        style.ONE_COLUMN if len(table) <= 150 and int(table["x"].max()) < 16 else style.TWO_COLUMN
    )


def name_room(table: pd.DataFrame) -> float:
    """Inches under the last panel that `name_ticks` takes."""
    if _are_indices(table):
        return 0.42
    return 0.1 + 0.066 * min(
        max(map(len, names.short_names(layer_names(table), NAME_WIDTH).values())), NAME_WIDTH
    )


def name_ticks(axes: Sequence[Axes], table: pd.DataFrame) -> None:
    """Layers under the last panel: their names, upright; counted from 1 where the names
    (`blocks.0`, `blocks.1`) say no more.
    """
    if not _are_indices(table):
        depth_axis.depth_ticks(axes, layer_names(table))
        return
    for ax in axes:
        index_ticks(ax, int(table["x"].max()) + 1)
        ax.tick_params(labelbottom=ax is axes[-1])
    axes[-1].set_xlabel(X_LABEL, size=style.TEXT)


def _are_indices(table: pd.DataFrame) -> bool:
    layers = layer_names(table)
    stem = layers[0].removesuffix("0")  # `blocks.`, `layers.encoder_layer_`
    return len(layers) > depth_axis.NAMED or layers == [f"{stem}{i}" for i in range(len(layers))]


def one_panel() -> Axes:
    """A panel of one-column width for a table alone."""
    _, axes, _ = layout.grid(1, 1, 2.0, width=style.ONE_COLUMN, legend_lines=0)
    return axes[0]

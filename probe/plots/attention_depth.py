"""Attention heads along depth: mass on prefix tokens, entropy, and a heat map of the distance.

Prefix mass: share of a patch query's attention on prefix tokens (class, registers). Entropy: of a
patch query's full row, in nats.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probe.plots import attention_heads as shared
from probe.plots import layout, style


def prefix_mass_and_entropy(table: pd.DataFrame, *, frame: layout.Frame | None = None) -> Figure:
    """Prefix mass (above; left out where no layer has prefix tokens) and entropy (below) of each
    head along depth.
    """
    table = shared.ordered(table, "entropy")
    heads = shared.heads_of([table])
    panels = [prefix_mass_by_depth, entropy_by_depth] if has_prefix(table) else [entropy_by_depth]
    with style.theme():
        room = layout.Room(
            left=0.56, right=shared.KEY_ROOM, gap_y=0.24, title=0.12, bottom=shared.name_room(table)
        )
        width = shared.depth_width(table)
        lines = 2 if width == style.ONE_COLUMN and len(shared.stages(table)) > 1 else 1
        figure, axes, top = layout.grid(
            len(panels), 1, 1.4, width=width, room=room, frame=frame, legend_lines=lines
        )
        for ax, panel in zip(axes, panels, strict=True):
            panel(table, ax)
            ax.set_xlabel("")
        shared.name_ticks(axes, table)
        shared.key(figure, axes[0], heads)
        layout.put_legend(
            figure, shared.entries(axes, "uniform: ln(keys)"), top, columns=2 if lines == 2 else 3
        )
    return figure


def prefix_mass_by_depth(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Attention mass on prefix tokens, one dot per head, and the mean of the heads."""
    table = shared.ordered(table, "prefix_mass")
    return _panel(
        table,
        "prefix_mass",
        "Mass on prefix tokens",
        ax,
        np.full(int(table["x"].max()) + 1, np.nan),
    )


def entropy_by_depth(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Entropy in nats, one dot per head, the mean of the heads, and ln(keys), the entropy of
    uniform attention.
    """
    table = shared.ordered(table, "entropy")
    return _panel(table, "entropy", "Entropy (nats)", ax, uniform_entropy(table))


def has_prefix(table: pd.DataFrame) -> bool:
    """Whether a head puts mass on prefix tokens."""
    return "prefix_mass" in table and bool(
        (pd.to_numeric(table["prefix_mass"]).fillna(0) > 0).any()
    )


def uniform_entropy(table: pd.DataFrame) -> shared.Array:
    """ln(keys that one query sees) per layer; NaN where the table does not say how many."""
    if not {"grid", "windows", "prefix_tokens", "token_stride", "uniform_px"} <= set(table):
        return np.full(int(table["x"].max()) + 1, np.nan)
    return np.array([np.log(_keys(row)) for _, row in table.drop_duplicates("x").iterrows()])


def _keys(row: pd.Series) -> float:
    """Tokens of a window and prefix tokens. NaN for global attention to fewer keys than queries:
    `uniform_px` gives it away.
    """
    rows, columns = (int(side) for side in str(row["grid"]).split("x"))
    if int(row["windows"]) == 1:
        expected = float(row["token_stride"]) * mean_distance(rows, columns)
        if not np.isclose(float(row["uniform_px"]), expected, rtol=1e-3):
            return np.nan
    return rows * columns / int(row["windows"]) + int(row["prefix_tokens"])


def mean_distance(rows: int, columns: int) -> float:
    """Mean distance between two patches drawn independently from a grid, in patches (7.2808 on 14 x
    14).
    """
    down, across = (
        np.abs(np.subtract.outer(np.arange(n), np.arange(n))).ravel() for n in (rows, columns)
    )
    near, share = np.unique(across, return_counts=True)
    return float((np.sqrt(down[:, None] ** 2 + near**2) * share).sum() / (rows * columns) ** 2)


def _panel(
    table: pd.DataFrame, column: str, label: str, ax: Axes | None, uniform: shared.Array
) -> Axes:
    mean = shared.per_layer(table, table[column])
    with style.theme():
        ax = ax if ax is not None else shared.one_panel()
        shared.index_ticks(ax, len(mean))
        shared.stage_lines(ax, table)
        shared.uniform_line(ax, uniform)
        shared.dots(ax, table, column, shared.heads_of([table]))
        ax.plot(np.arange(len(mean)), mean, **shared.MEAN, zorder=4, gid="mean")
        shared.value_axis(ax, np.concatenate([table[column].to_numpy(np.float64), uniform]), label)
        ax.set_xlabel(shared.X_LABEL, size=style.TEXT)
    return ax

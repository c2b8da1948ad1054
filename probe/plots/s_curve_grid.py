"""Every layer of a model, or a few of them, in one figure of S-curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probe.formatting import number, typeset
from probe.plots import fan as fans
from probe.plots import fitted, layout, names, points, s_curve, style
from probe.records import Status

NOTES = {
    "dotted": "dotted: where the extreme inputs begin",
    "R\u00b2": "R\u00b2 a/b: fit / best element-wise curve",
}


def s_curve_grid(
    samples: pd.DataFrame | Mapping[str, pd.DataFrame],
    fits: pd.DataFrame | None = None,
    *,
    layers: Sequence[str] | None = None,
    fan: pd.DataFrame | None = None,
    shape: fitted.Shape = fitted.TANH,
    columns: int | None = None,
    frame: layout.Frame | None = None,
    statuses: dict[str, str] | None = None,
) -> Figure:
    """All `layers` (default: all in `samples`) in reading order at two-column width, each with
    alpha, R2 / ceiling and status.

    `samples`: a table of all layers, or layer -> table; `statuses`: what a panel without points
    says (not_finite, not_called).
    """
    by_layer, fits_of = points.per_layer(samples), points.per_layer(fits)
    layers = list(layers) if layers is not None else list(by_layer)
    plan = GridPlan.of(len(layers), columns)
    norm = fans.slope_norm(fan) if fan is not None and not fan.empty else None
    some_fan = fan is not None and bool(fan["layer"].astype(str).isin(layers).any())
    with style.theme():
        figure, axes, top = layout.grid(
            len(layers),
            plan.columns,
            plan.height,
            room=plan.room,
            frame=frame,
            legend_lines=1 + some_fan,
        )
        short = names.short_names(layers, plan.characters)
        for ax, layer in zip(axes, layers, strict=True):
            rows = by_layer.get(layer)
            if rows is None or rows.empty:
                s_curve.finish(ax, None, (statuses or {}).get(layer, ""))
            else:
                s_curve.s_curves(
                    rows, fits_of.get(layer), ax, layer=layer, shape=shape, fan=fan, fan_norm=norm
                )
            s_curve.panel_title(
                ax, short[layer], panel_summary(fits_of.get(layer), fan, layer, shape, plan)
            )
        layout.put_legend(figure, legend(axes, shape), top)
        if some_fan:
            fans.colour_bar(figure, norm, top * figure.get_size_inches()[1] - layout.LINE)
        layout.put_labels(figure, axes, s_curve.X_LABEL, s_curve.Y_LABEL, note(axes))
    return figure


@dataclass(frozen=True)
class GridPlan:
    """Columns, panel height (in) and characters of text over a panel, by the number of panels."""

    columns: int
    height: float
    characters: int
    decimals: int
    interval: bool
    room: layout.Room

    @classmethod
    def of(cls, panels: int, columns: int | None = None) -> GridPlan:
        columns = columns or (
            panels if panels <= 4 else 4 if panels <= 12 else 5 if panels <= 36 else 6
        )
        height = {1: 2.6, 2: 2.2, 3: 1.65, 4: 1.25, 5: 0.95}.get(columns, 0.8)
        left, gap = (0.7 if panels <= columns else 0.6), (0.36 if columns <= 4 else 0.31)
        right = (
            0.1 if columns <= 3 else 0.24 if columns == 4 else 0.3
        )  # the line over the last panel is wider than the panel
        room = layout.Room(left=left, right=right, gap_x=gap, gap_y=0.52)
        pitch = (style.TWO_COLUMN - room.left - room.right + gap) / columns
        return cls(
            columns, height, int(pitch / 0.066), 3 if columns <= 5 else 2, columns <= 2, room
        )


def panel_summary(
    fits: pd.DataFrame | None,
    fan: pd.DataFrame | None,
    layer: str,
    shape: fitted.Shape,
    plan: GridPlan,
) -> str:
    """Alpha and R2 of a curve, or the range of the slopes of a fan."""
    lines = points.of_layer(fan, layer) if fan is not None else pd.DataFrame()
    if not lines.empty:
        low, high = float(lines["slope"].min()), float(lines["slope"].max())
        first, last = number(low, 2), number(high, 2)
        return typeset(f"slopes {first} to {last}" if first != last else f"slope {first}")
    return fitted.summary(
        fitted.pick(fits, layer, shape.family), plan.decimals, plan.interval, plan.columns > 4
    )


def note(axes: Sequence[Axes]) -> str:
    """What the marks and numbers mean that no legend names; of those that are there."""
    dotted = any(line.get_gid() == "threshold" for ax in axes for line in ax.lines)
    has_r2 = any("R\u00b2" in ax.get_title("left") for ax in axes)
    shown = {"dotted": dotted, "R\u00b2": has_r2}
    return ";  ".join(text for mark, text in NOTES.items() if shown[mark])


def legend(axes: Sequence[Axes], shape: fitted.Shape) -> list[Line2D]:
    """An entry for each kind of mark that stands in any of the panels."""
    drawn = {artist.get_gid() for ax in axes for artist in [*ax.collections, *ax.lines]}
    colours = {(line.get_gid(), line.get_color()) for ax in axes for line in ax.lines}
    entries: list[tuple[bool, str, dict[str, Any]]] = [
        (
            "uniform" in drawn,
            "uniform sample",
            {"marker": "o", "color": style.POINT, "ls": "", "ms": 3.5},
        ),
        (
            "tail" in drawn,
            "extreme inputs",
            {"marker": "o", "color": style.TAIL, "ls": "", "ms": 3.5},
        ),
        (
            ("population", style.CURVE) in colours,
            f"{shape.family} fit",
            {"color": style.CURVE, "lw": 1.4},
        ),
        (
            ("population", style.PALE_CURVE) in colours,
            "not established",
            {"color": style.PALE_CURVE, "lw": 1.4},
        ),
        (
            ("range", style.CURVE) in colours,
            "range-weighted",
            {"color": style.CURVE, "lw": 0.9, "ls": (0, (3, 2))},
        ),
        (
            "fan" in drawn,
            "line per channel",
            {"color": style.STATUS_COLOURS[Status.AFFINE], "lw": 0.8},
        ),
        (
            ("population", style.LINE) in colours,
            "line",
            {"color": style.LINE, "lw": 1.4},
        ),
    ]
    return [Line2D([], [], label=label, **style_) for shown, label, style_ in entries if shown]

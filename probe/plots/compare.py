"""Two runs in one figure: the layers of one model over those of another, e.g. a ViT's LayerNorms
and a ResNet's BatchNorms.

Each token has its own line in LayerNorm, which bends the cloud into an S; each channel has its own
in BatchNorm, a fan of lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probe.plots import fan as fans
from probe.plots import fitted, layout, names, points, s_curve, style
from probe.plots.s_curve_grid import GridPlan, legend, note, panel_summary


@dataclass(frozen=True)
class Side:
    """One run: what stands over its row of panels, and the tables of the `layers` shown."""

    title: str
    layers: Sequence[str]
    samples: pd.DataFrame | Mapping[str, pd.DataFrame]
    fits: pd.DataFrame | None = None
    fan: pd.DataFrame | None = None


def compare_grid(
    sides: Sequence[Side], *, frame: layout.Frame | None = None, shape: fitted.Shape = fitted.TANH
) -> Figure:
    """One row of panels for each side, at most four in a row, at two-column width."""
    columns = max(2, *(len(side.layers) for side in sides))
    plan = GridPlan.of(len(sides) * columns, columns)
    room = layout.Room(
        left=0.6, right=plan.room.right, gap_x=plan.room.gap_x, gap_y=0.78, title=0.5
    )
    with style.theme():
        figure, axes, top = layout.grid(
            len(sides) * columns, columns, plan.height, room=room, frame=frame
        )
        for row, side in enumerate(sides):
            _row(figure, axes[row * columns : (row + 1) * columns], side, plan, shape)
        shown = [ax for ax in axes if ax.figure is not None]
        layout.put_legend(figure, legend(shown, shape), top)
        layout.put_labels(figure, shown, s_curve.X_LABEL, s_curve.Y_LABEL, note(shown))
    return figure


def _row(
    figure: Figure, axes: Sequence[Axes], side: Side, plan: GridPlan, shape: fitted.Shape
) -> None:
    norm = fans.slope_norm(side.fan) if side.fan is not None and not side.fan.empty else None
    by_layer = points.per_layer(side.samples)
    short = names.short_names(side.layers, plan.characters)
    for ax, layer in zip(axes, side.layers, strict=False):
        s_curve.s_curves(
            by_layer[layer], side.fits, ax, layer=layer, shape=shape, fan=side.fan, fan_norm=norm
        )
        s_curve.panel_title(
            ax, short[layer], panel_summary(side.fits, side.fan, layer, shape, plan)
        )
    if norm is not None:
        fans.colour_bar(
            figure, norm, axes[0].get_position().y1 * figure.get_size_inches()[1] + 0.47
        )
    for ax in axes[len(side.layers) :]:
        ax.remove()
    box, height = axes[0].get_position(), figure.get_size_inches()[1]
    figure.text(
        box.x0,
        box.y1 + 0.34 / height,
        names.as_drawn(side.title),
        size=style.TEXT,
        color=style.MUTED,
        ha="left",
        va="bottom",
        gid="side",
    )

"""The alphas that norms learn, side by side: over the epochs, and at the end against 1/std."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from probe.plots import by_epoch, layout, names, style
from probe.plots.training import of_quantity
from probe.plots.training_alpha import against, alpha_and_inverse_std

COLUMNS = 4


def alpha_by_norm(
    tables: Mapping[str, pd.DataFrame], *, frame: layout.Frame | None = None
) -> Figure:
    """A column per norm: above alpha of every layer by epoch, below the last alphas against one
    over the standard deviation of the layer's input; dashed: equal. tables: rows of norms.csv by
    norm.
    """
    shown = dict(list(tables.items())[:COLUMNS])
    count = len(shown)
    with style.theme():
        room = layout.Room(left=0.58, right=0.8, gap_x=0.5, gap_y=0.62, title=0.2, bottom=0.42)
        width = style.TWO_COLUMN if count > 1 else style.ONE_COLUMN
        figure, axes, _ = layout.grid(
            2 * count, count, 1.5, width=width, room=room, frame=frame, legend_lines=0
        )
        for place, (norm, rows) in enumerate(shown.items()):
            above, below = axes[place], axes[count + place]
            alphas = of_quantity(rows, "alpha")
            by_epoch.draw_lines(alphas, "value", above)
            by_epoch.epoch_axis(above, sorted(set(alphas["epoch"].astype(float))))
            above.set_title(names.as_drawn(norm), loc="left", size=style.TEXT, weight="bold", pad=3)
            both = alpha_and_inverse_std(rows)
            against(both[both["epoch"] == both["epoch"].max()], below)
            below.set_ylabel("")
        axes[0].set_ylabel("\u03b1 of the layer", size=style.TEXT)
        axes[count].set_ylabel("\u03b1, last epoch", size=style.TEXT)
        alphas = of_quantity(pd.concat(list(shown.values())), "alpha")
        scale = by_epoch.scale(alphas["depth"].astype(float).to_list())
        by_epoch.bar(figure, axes[count - 1], scale, "depth (execution order)")
    return figure

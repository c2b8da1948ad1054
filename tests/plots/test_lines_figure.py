"""The fan of lines along depth, and what one line for all channels misses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probe import plots
from probe.plots import lines
from support import figure_data

FAN = figure_data.make("affine", 3).fan


def test_the_median_of_each_box_is_that_of_the_channels() -> None:
    slopes, offsets = plots.lines_by_depth(FAN).axes
    for ax, column in ((slopes, "slope"), (offsets, "offset")):
        medians = [
            line.get_ydata()[0] for line in ax.lines if line.get_color() == plots.lines.style.CURVE
        ]
        assert medians == pytest.approx(FAN.groupby("layer", sort=False)[column].median().tolist())


def test_slopes_of_either_sign_share_the_log_axis_and_the_legend_says_so() -> None:
    turned = FAN.assign(slope=np.where(FAN["channel"] % 2, -1, 1) * FAN["slope"])
    figure = plots.lines_by_depth(turned)
    assert "absolute slopes" in figure_data.words(figure)
    assert "absolute slopes" not in figure_data.words(plots.lines_by_depth(FAN))
    assert [line.get_ydata()[0] for line in figure.axes[0].lines] == pytest.approx(
        [line.get_ydata()[0] for line in plots.lines_by_depth(FAN).axes[0].lines]
    )


def test_a_line_per_channel_is_filled_and_one_line_for_all_is_open() -> None:
    table = pd.DataFrame(
        {
            "layer": ["a", "b", "c"],
            "depth": [2, 0, 1],
            "layer_r2": [0.5, 0.3, np.nan],
            "channel_r2": 1.0,
        }
    )
    [ax] = plots.r2_by_scope({"resnet": table}).axes
    one, each = ax.lines
    assert list(one.get_ydata()) == [0.3, 0.5]  # in execution order, without the missing one
    assert list(each.get_ydata()) == [1, 1, 1]
    assert (one.get_markerfacecolor(), each.get_markerfacecolor()) == ("white", each.get_color())
    assert ax.get_ylim()[0] < 0.3
    assert ax.get_ylim()[1] > 1


def test_axes_given_are_drawn_on_and_returned() -> None:
    ax = plots.lines_by_depth(FAN).axes[1]
    assert (
        lines.offsets(
            FAN,
            ax,
            layers=["layer"] if "layer" in set(FAN["layer"]) else list(FAN["layer"].unique()),
        )
        is ax
    )

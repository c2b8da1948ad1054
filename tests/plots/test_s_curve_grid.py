"""The grid has a panel for each layer asked for, in that order, and says what it cannot show."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from probe import plots
from support import figure_data


def panel_names(figure: Figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts if text.get_gid() == "name"]


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 4), (7, 4), (17, 5), (40, 6)])
def test_columns_follow_the_number_of_layers(count: int, columns: int) -> None:
    tables = figure_data.make(count=count)
    figure = plots.s_curve_grid(tables.samples, tables.fits)
    assert panel_names(figure) == tables.names
    lefts = {round(ax.get_position().x0, 4) for ax in figure.axes}
    assert len(lefts) == columns
    assert figure.get_figwidth() == pytest.approx(7.16)


def test_layers_are_drawn_in_the_order_given() -> None:
    tables = figure_data.make(count=5)
    chosen = ["norm", "blocks.0.norm1"]
    assert panel_names(plots.s_curve_grid(tables.samples, tables.fits, layers=chosen)) == chosen


def test_a_table_and_a_mapping_of_tables_look_the_same() -> None:
    tables = figure_data.make(count=3)
    figures = [
        plots.s_curve_grid(s, tables.fits)
        for s in (tables.samples, dict(list(tables.samples.groupby("layer"))))
    ]
    assert figure_data.words(figures[0]) == figure_data.words(figures[1])


def test_a_layer_without_samples_is_a_panel_that_says_why() -> None:
    tables = figure_data.make(["curved", "not_called", "not_finite"])
    figure = plots.s_curve_grid(
        tables.samples, tables.fits, layers=tables.names, statuses={"blocks.0.norm2": "not_called"}
    )
    assert {"not called", "not finite", "curved"} <= set(figure_data.words(figure).splitlines())


def test_random_weights_are_marked() -> None:
    tables = figure_data.make()
    figure = plots.s_curve_grid(
        tables.samples, tables.fits, frame=plots.Frame("vit", "random weights")
    )
    (mark,) = [text for text in figure.texts if text.get_gid() == "warning"]
    assert mark.get_text() == "RANDOM WEIGHTS"
    assert mark.get_bbox_patch() is not None
    assert not [
        t for t in plots.s_curve_grid(tables.samples, tables.fits).texts if t.get_gid() == "warning"
    ]


def test_all_fans_share_one_colour_scale() -> None:
    """So that a colour means the same slope in every panel."""
    tables = figure_data.make("affine", 3)
    figure = plots.s_curve_grid(tables.samples, tables.fits, fan=tables.fan)
    scales = {
        (c.norm.vmin, c.norm.vmax)
        for ax in figure.axes
        for c in ax.collections
        if c.get_gid() == "fan"
    }
    assert len(scales) == 1
    assert "line per channel" in figure_data.words(figure)


def test_r2_is_that_of_what_is_drawn() -> None:
    """Of the line, where the line is drawn: the row of a linear layer also keeps the R2 of its best
    tanh.
    """
    tables = figure_data.make("linear", 1)
    figure = plots.s_curve_grid(tables.samples, tables.fits)
    assert "R\u00b2 0.900/0.980" in figure.axes[0].get_title("left")

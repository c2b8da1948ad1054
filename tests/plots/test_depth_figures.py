"""Figures along depth: families and extremes."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes

from probe import plots
from probe.plots.families import layer_fits
from support import figure_data


def line(ax: Axes, gid: str) -> np.ndarray:
    (found,) = [x for x in ax.lines if x.get_gid() == gid]
    return np.asarray(found.get_ydata(), dtype=float)


def test_quality_is_r2_and_the_panel_below_what_is_missing_of_the_ceiling() -> None:
    figure = plots.families_by_depth(figure_data.make(count=3).fits)
    above, below = figure.axes[:2]
    np.testing.assert_allclose(line(above, "ceiling"), 0.98)
    np.testing.assert_allclose(line(above, "tanh"), 0.968)
    np.testing.assert_allclose(line(above, "linear"), 0.9)
    np.testing.assert_allclose(line(below, "erf"), 0.98 - 0.966)
    assert below.get_yscale() == "log"


def test_every_family_is_named_at_its_line() -> None:
    figure = plots.families_by_depth(figure_data.make(count=3).fits)
    named = {text.get_text() for text in figure.axes[1].texts if text.get_gid() == "family"}
    assert named == set(figure_data.FAMILIES)


def test_status_marks_stand_over_their_layers() -> None:
    figure = plots.families_by_depth(figure_data.make(["curved", "linear", "curved"]).fits)
    marks = {
        x.get_gid(): list(x.get_xdata())
        for x in figure.axes[0].lines
        if str(x.get_gid()).startswith("status")
    }
    assert marks == {"status curved": [0, 2], "status linear": [1]}


def test_layers_that_are_affine_per_channel_have_no_pooled_curve() -> None:
    fits = figure_data.make(["affine", "curved"]).fits
    assert set(layer_fits(fits)["layer"]) == {"norm"}


def test_the_range_weighted_and_channel_rows_stay_out() -> None:
    rows = layer_fits(figure_data.make(count=2).fits)
    assert not rows.duplicated(["layer", "family"]).any()


def test_shares_are_in_percent_and_null_stays_a_gap() -> None:
    figure = plots.extremes_by_depth(figure_data.make(["curved", "linear", "curved"]).alphas)
    np.testing.assert_allclose(line(figure.axes[0], "beyond_linear"), [1.0, np.nan, 3.0])
    np.testing.assert_allclose(line(figure.axes[1], "max_abs_input"), [30, 60, 90])


def test_massive_channels_are_counted_at_their_layer() -> None:
    figure = plots.extremes_by_depth(figure_data.make(count=3).alphas)
    (mark,) = [text for text in figure.axes[1].texts if text.get_gid() == "massive"]
    assert (mark.get_text(), mark.xy[0]) == ("1", 1)


@pytest.mark.parametrize("status", ["affine", "linear", "not_finite"])
def test_without_curved_layers_the_shares_are_left_out(status: str) -> None:
    assert len(plots.extremes_by_depth(figure_data.make(status, 2).alphas).axes) == 1


def test_many_layers_are_numbered() -> None:
    figure = plots.extremes_by_depth(figure_data.make("affine", 90).alphas)
    assert [t.get_text() for t in figure.axes[-1].get_xticklabels()] == [
        str(i) for i in range(0, 90, 10)
    ]


def test_shares_of_a_curve_that_is_not_established_are_hollow() -> None:
    alphas = figure_data.make(count=3).alphas.assign(status=["curved", "undetermined", "curved"])
    figure = plots.extremes_by_depth(alphas)
    hollow = [line for line in figure.axes[0].lines if line.get_gid() == "not established"]
    assert [list(line.get_xdata()) for line in hollow] == [[1], [1]]
    assert {line.get_markerfacecolor() for line in hollow} == {"white"}
    assert "not established" in figure_data.words(figure)

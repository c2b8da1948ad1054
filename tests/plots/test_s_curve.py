"""One layer's panel shows every extreme and the curve that the table holds."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from probe import plots
from probe.errors import UsageError
from probe.plots import style
from support import figure_data


def drawn(ax: Axes, gid: str) -> Any:
    """The one artist of that name."""
    found = [
        artist for artist in [*ax.collections, *ax.lines, *ax.texts] if artist.get_gid() == gid
    ]
    assert len(found) == 1, f"{len(found)} artists {gid!r}"
    return found[0]


def panel(status: str = "curved", **options: Any) -> tuple[Axes, figure_data.Tables]:
    tables = figure_data.make(status, 1)
    fan = tables.fan if status == "affine" else None
    return plots.s_curves(tables.samples, tables.fits, fan=fan, **options), tables


def test_shows_every_uniform_and_tail_element() -> None:
    """A small sample is not thinned, and prefix rows, which are extra, stay out."""
    ax, tables = panel()
    for stratum in ("uniform", "tail"):
        part = tables.samples[tables.samples["stratum"] == stratum]
        assert np.array_equal(
            drawn(ax, stratum).get_offsets(), part[["input", "normalized"]].to_numpy()
        )
    assert sum(isinstance(c, PathCollection) for c in ax.collections) == 2


def test_the_tail_is_inside_the_axes() -> None:
    ax, tables = panel()
    assert (
        ax.get_xlim()[0]
        < tables.samples["input"].min()
        < tables.samples["input"].max()
        < ax.get_xlim()[1]
    )
    assert (
        ax.get_ylim()[0]
        < tables.samples["normalized"].min()
        < tables.samples["normalized"].max()
        < ax.get_ylim()[1]
    )


def test_thinning_keeps_the_whole_tail() -> None:
    ax, _ = panel(points_shown=10)
    assert len(drawn(ax, "uniform").get_offsets()) <= 10
    assert len(drawn(ax, "tail").get_offsets()) == figure_data.TAIL


def test_draws_gamma_tanh_alpha_x_plus_beta() -> None:
    """The solid curve is that of the row `tanh, population`."""
    ax, _ = panel()
    x, z = drawn(ax, "population").get_data()
    np.testing.assert_allclose(z, 3.0 * np.tanh(0.2 * x) + 0.05)
    assert drawn(ax, "population").get_linestyle() == "-"
    assert drawn(ax, "range").get_linestyle() == "--"


def test_draws_another_family_with_its_shift() -> None:
    ax, _ = panel(shape=plots.Shape("tanh_shift", np.arctan))
    x, z = drawn(ax, "population").get_data()
    np.testing.assert_allclose(z, 3.0 * np.arctan(0.2 * x + 0.1) + 0.05)


def test_a_linear_layer_gets_its_line_and_no_alpha() -> None:
    ax, _ = panel("linear")
    x, z = drawn(ax, "population").get_data()
    np.testing.assert_allclose(z, 0.5 * x + 0.05)
    assert ax.get_title("left") == "slope 0.500  R\u00b2 0.900/0.980"
    assert "range" not in {line.get_gid() for line in ax.lines}


def test_says_alpha_r2_ceiling_and_status() -> None:
    ax, _ = panel()
    assert ax.get_title("left") == "\u03b1 0.200 [0.150, 0.250]  R\u00b2 0.968/0.980"
    assert drawn(ax, "status").get_text() == "curved"


def test_an_affine_layer_is_a_fan_of_one_line_per_channel() -> None:
    """Each from the smallest to the largest input of its channel, coloured by its slope."""
    ax, tables = panel("affine")
    fan, segments = drawn(ax, "fan"), drawn(ax, "fan").get_segments()
    assert len(segments) == figure_data.CHANNELS
    expected = tables.fan.sort_values("slope", ascending=False)
    np.testing.assert_allclose(fan.get_array(), expected["slope"])
    np.testing.assert_allclose([s[:, 0] for s in segments], expected[["low", "high"]])
    np.testing.assert_allclose(
        [s[1, 1] for s in segments], expected["slope"] * expected["high"] + expected["offset"]
    )
    assert drawn(ax, "status").get_text() == "affine"
    assert not [line for line in ax.lines if line.get_gid() == "population"]


def test_dense_marks_are_rasterized_and_the_curve_is_not() -> None:
    for status in ("curved", "affine"):
        ax, _ = panel(status)
        assert all(c.get_rasterized() for c in ax.collections)
        assert not any(line.get_rasterized() for line in ax.lines)


def test_a_layer_of_nan_says_its_status() -> None:
    ax, _ = panel("not_finite")
    assert drawn(ax, "status").get_text() == "not finite"


def test_draws_without_fits() -> None:
    ax = plots.s_curves(figure_data.make(count=1).samples)
    assert not [line for line in ax.lines if line.get_gid() in ("population", "range")]


def test_draws_into_the_axes_given() -> None:
    ax = Figure().subplots()
    tables = figure_data.make(count=1)
    assert plots.s_curves(tables.samples, tables.fits, ax=ax) is ax


def test_several_layers_need_a_choice() -> None:
    tables = figure_data.make(count=3)
    with pytest.raises(
        UsageError, match="samples of 3 layers given; one panel shows one: choose it with layer="
    ):
        plots.s_curves(tables.samples, tables.fits)
    ax = plots.s_curves(tables.samples, tables.fits, layer="blocks.0.norm2")
    assert len(drawn(ax, "uniform").get_offsets()) == figure_data.ROWS * figure_data.CHANNELS


def test_leaves_no_global_state() -> None:
    """No pyplot figure, no changed setting."""
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    panel()
    assert not plt.get_fignums()
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("status", ["undetermined", "linear", "mixture"])
def test_a_curve_that_is_not_established_is_pale_and_alone(status: str) -> None:
    tables = figure_data.make("curved", 1)
    ax = plots.s_curves(tables.samples, tables.fits.assign(status=status))
    (curve,) = [line for line in ax.lines if line.get_gid() in ("population", "range")]
    assert curve.get_color() == style.PALE_CURVE
    assert ax.get_title("left").startswith("(\u03b1 ")


def test_dotted_lines_stand_where_the_extreme_inputs_begin() -> None:
    ax, tables = panel()
    tail = tables.samples.query("stratum == 'tail'")["input"]
    at = sorted(
        float(np.asarray(line.get_xdata())[0]) for line in ax.lines if line.get_gid() == "threshold"
    )
    assert at == pytest.approx([tail[tail < 0].max(), tail[tail > 0].min()])

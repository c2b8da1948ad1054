"""Alpha and slope against 1/std: one point per layer, no point for a number that does not exist."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from probe import plots
from probe.plots.alpha import drawable
from support import figure_data


def points(figure: Figure, gid: str) -> np.ndarray:
    parts = [
        np.asarray(c.get_offsets())
        for ax in figure.axes
        for c in ax.collections
        if c.get_gid() == gid
    ]
    return np.concatenate(parts) if parts else np.empty((0, 2))


def test_alpha_only_of_curved_layers_and_slope_of_all() -> None:
    tables = figure_data.make(["curved", "linear", "affine", "not_finite"])
    figure = plots.alpha_vs_inverse_std(tables.alphas)
    table = tables.alphas.set_index("status")
    np.testing.assert_allclose(
        points(figure, "alpha"), [table.loc["curved", ["inverse_std", "alpha"]].astype(float)]
    )
    slopes = {
        (float(table.loc[status, "inverse_std"]), float(table.loc[status, column]))
        for status, column in (("curved", "slope"), ("linear", "slope"), ("affine", "slope_median"))
    }
    assert {tuple(p) for p in points(figure, "slope")} == slopes


def test_bars_span_the_interval_and_the_channels() -> None:
    tables = figure_data.make(["curved", "affine"])
    figure = plots.alpha_vs_inverse_std(tables.alphas)
    bars = [
        [s[:, 1] for s in c.get_segments()]
        for ax in figure.axes
        for c in ax.collections
        if c.get_gid() == "interval"
    ]
    np.testing.assert_allclose(bars[0], [[0.15, 0.25]])
    affine = tables.alphas.iloc[1]
    np.testing.assert_allclose(bars[-1], [[affine["slope_min"], affine["slope_max"]]])


def test_missing_interval_leaves_the_point() -> None:
    alphas = figure_data.make(count=2).alphas.assign(alpha_low=np.nan, alpha_high=np.nan)
    assert len(points(plots.alpha_vs_inverse_std(alphas), "alpha")) == 2


def test_without_a_curved_layer_only_the_slopes_are_drawn() -> None:
    figure = plots.alpha_vs_inverse_std(figure_data.make("affine", 4).alphas)
    assert figure.get_figwidth() == 3.5
    assert len(points(figure, "alpha")) == 0
    assert len(points(figure, "slope")) == 4


def test_axes_are_logarithmic_and_hold_every_point() -> None:
    figure = plots.alpha_vs_inverse_std(figure_data.make(count=6).alphas)
    for ax in figure.axes[:2]:
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        for x, y in np.concatenate(
            [
                np.asarray(c.get_offsets())
                for c in ax.collections
                if c.get_gid() in ("alpha", "slope")
            ]
        ):
            assert ax.get_xlim()[0] < x < ax.get_xlim()[1]
            assert ax.get_ylim()[0] < y < ax.get_ylim()[1]


def test_tables_without_columns_for_affine_layers_are_enough() -> None:
    alphas = figure_data.make(count=2).alphas.drop(
        columns=["slope_min", "slope_median", "slope_max"]
    )
    assert len(drawable(alphas)) == 2
    assert drawable(pd.DataFrame(columns=alphas.columns)).empty


def test_a_curve_that_is_not_established_is_hollow() -> None:
    alphas = figure_data.make(count=2).alphas.assign(status=["curved", "undetermined"])
    figure = plots.alpha_vs_inverse_std(alphas)
    faces = [
        to_hex(part.get_facecolor()[0])
        for part in figure.axes[0].collections
        if part.get_gid() == "alpha"
    ]
    assert len(faces) == 2
    assert faces.count("#ffffff") == 1

"""Two runs in one figure: a row of panels for each."""

from __future__ import annotations

from probe import plots
from support import figure_data


def side(status: str, count: int, title: str) -> plots.Side:
    tables = figure_data.make(status, count)
    return plots.Side(title, tables.names, tables.samples, tables.fits, tables.fan)


def test_curves_stand_over_the_fan() -> None:
    figure = plots.compare_grid([side("curved", 4, "vit"), side("affine", 4, "resnet")])
    drawn = [
        {artist.get_gid() for artist in [*ax.collections, *ax.lines]}
        for ax in figure.axes
        if ax.texts
    ]
    assert all("population" in gids for gids in drawn[:4])
    assert all("fan" in gids for gids in drawn[4:8])
    assert [text.get_text() for text in figure.texts if text.get_gid() == "side"] == [
        "vit",
        "resnet",
    ]


def test_a_run_with_fewer_layers_leaves_its_places_free() -> None:
    figure = plots.compare_grid([side("curved", 4, "vit"), side("linear", 2, "small")])
    assert len([ax for ax in figure.axes if ax.texts]) == 6
    figure_data.check_legible(figure)

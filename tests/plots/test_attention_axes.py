"""Axes of the figures of attention: pixels from 0, or relative to uniform attention where images
differ in size; layers and heads from 1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from probe import plots
from support import attention_data

LARGE = 384 / 224


def larger() -> pd.DataFrame:
    """The ViT-B of the tables on images of 384 pixels: a grid of 24x24."""
    table = attention_data.make("vit_b", 1)
    uniform = attention_data.uniform(24) * 16
    grown = {name: table[name] * LARGE for name in ("distance_px", "distance_px_std")}
    return table.assign(grid="24x24", uniform_px=uniform, **grown)


def words(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


def dots(figure: Figure, panel: int, head: int) -> np.ndarray:
    ax = figure.axes[panel]
    (collection,) = [c for c in ax.collections if c.get_gid() == f"head {head}"]
    return np.asarray(collection.get_offsets())


def test_runs_on_images_of_different_sizes_share_an_axis_relative_to_uniform_attention() -> None:
    runs = {"224": attention_data.make("vit_b"), "384": larger()}
    figure = plots.attention_distance(runs)
    assert "Mean attention distance / uniform" in words(figure)
    assert "(px)" not in words(figure)
    for panel, table in enumerate(runs.values()):
        own = table[table["head"] == 3]
        np.testing.assert_allclose(
            dots(figure, panel, 3)[:, 1], own["distance_px"] / own["uniform_px"]
        )
        dashed = [x for x in figure.axes[panel].lines if x.get_gid() == "uniform"]
        assert [np.asarray(x.get_ydata()).tolist() for x in dashed] == [[1.0, 1.0]]


def test_stages_and_patch_sizes_of_one_image_size_keep_pixels() -> None:
    """14x14 of 16 pixels and windows on 56x56 of 4 pixels are both 224 pixels."""
    runs = {"vit": attention_data.make("vit_b"), "swin": attention_data.make("swin_t")}
    figure = plots.attention_distance(runs)
    assert "Mean attention distance (px)" in words(figure)
    own = runs["swin"][runs["swin"]["head"] == 1]
    np.testing.assert_allclose(dots(figure, 1, 1)[:, 1], own["distance_px"])


def test_without_the_distance_of_uniform_attention_pixels_stay() -> None:
    runs = {"224": attention_data.make("vit_b"), "384": larger().drop(columns="uniform_px")}
    assert "(px)" in words(plots.attention_distance(runs))


def test_a_relative_axis_can_be_asked_for_in_every_figure_of_the_distance() -> None:
    table = attention_data.make("swin_t")
    relative = (table["distance_px"] / table["uniform_px"]).to_numpy()
    (mesh,) = [
        c
        for c in plots.distance_heatmap(table, unit="uniform").axes[0].collections
        if c.get_gid() == "heat"
    ]
    values = np.ma.asarray(mesh.get_array()).compressed()
    np.testing.assert_allclose(np.sort(values), np.sort(relative))
    ax = plots.sorted_distances(table, unit="uniform")
    assert ax.get_ylabel() == "Mean attention distance / uniform"
    uniform = [np.asarray(x.get_ydata())[0] for x in ax.lines if x.get_gid() == "uniform"]
    assert uniform == [1.0]
    (bars,) = [c for c in ax.collections if c.get_gid() == "std layers.3.blocks.1.attn"]
    own = table[table["depth"] == 11].sort_values("distance_px")
    np.testing.assert_allclose(
        [s[1, 1] - s[0, 1] for s in bars.get_segments()],
        2 * own["distance_px_std"] / own["uniform_px"],
    )


@pytest.mark.parametrize("unit", ["px", "patches", "uniform"])
def test_heads_that_all_look_alike_are_drawn_on_an_axis_from_0(unit: str) -> None:
    table = attention_data.make("vit_s")
    near = table["uniform_px"] * np.linspace(0.99, 1.01, len(table))
    table = table.assign(distance_px=near, distance_patches=near / 16)
    figures = [plots.attention_distance(table, unit=unit), plots.sorted_heads(table, unit=unit)]
    for figure in figures:
        low, high = figure.axes[0].get_ylim()
        assert low == 0
        assert high > max(figure.axes[0].get_lines()[0].get_ydata())


@pytest.mark.parametrize(
    ("kind", "first", "last"), [("vit_s", "1", "12"), ("vit_l", "1", None), ("deep", "1", None)]
)
def test_layers_are_counted_from_1_at_their_dots(kind: str, first: str, last: str | None) -> None:
    ax = plots.distance_by_depth(attention_data.make(kind))
    labels = [tick.get_text() for tick in ax.get_xticklabels()]
    assert labels[0] == first
    assert last is None or labels[-1] in (last, "11")
    assert [int(text) - 1 for text in labels] == ax.get_xticks().tolist()


def test_the_heat_map_counts_blocks_from_1_too() -> None:
    ax = plots.distance_heatmap(attention_data.make("vit_s")).axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [str(i) for i in range(1, 13)]
    assert ax.get_xticks().tolist() == list(range(12))


def test_sorted_heads_are_counted_from_1() -> None:
    ax = plots.sorted_distances(attention_data.make("vit_s"))
    assert ax.get_xticklabels()[0].get_text() == "1"
    assert ax.get_xticks()[0] == 1

"""Figures of attention heads show what the table says: each head of each layer once, at its
value.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probe import plots
from probe.errors import UsageError
from probe.plots import attention_heads
from probe.plots.attention_depth import mean_distance, uniform_entropy
from support import attention_data


def heads(ax: Axes) -> dict[int, np.ndarray]:
    """Head -> its dots (layers, 2)."""
    found = {str(c.get_gid()): np.asarray(c.get_offsets()) for c in ax.collections}
    return {
        int(gid.split()[1]): offsets for gid, offsets in found.items() if gid.startswith("head ")
    }


def lines(ax: Axes, gid: str) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (np.asarray(x.get_xdata(), float), np.asarray(x.get_ydata(), float))
        for x in ax.lines
        if x.get_gid() == gid
    ]


def legend_words(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize("kind", attention_data.VITS)
@pytest.mark.parametrize(
    ("unit", "column"), [("px", "distance_px"), ("patches", "distance_patches")]
)
def test_every_head_of_every_layer_is_a_dot_at_its_distance(
    kind: str, unit: str, column: str
) -> None:
    table = attention_data.make(kind)
    (ax,) = (a for a in plots.attention_distance(table, unit=unit).axes if heads(a))
    for head, part in table.groupby("head"):
        offsets = heads(ax)[int(head)]
        np.testing.assert_array_equal(np.round(offsets[:, 0]), part["depth"])
        np.testing.assert_allclose(offsets[:, 1], part[column])
    assert unit in " ".join(text.get_text() for text in ax.figure.texts)


def test_no_two_heads_of_a_layer_stand_on_each_other() -> None:
    for dots in zip(
        *heads(plots.distance_by_depth(attention_data.make("deep"))).values(), strict=True
    ):
        assert len({x for x, _ in dots}) == 24


def test_rows_in_any_order_give_the_same_dots() -> None:
    table = attention_data.make("swin_t")
    shuffled = table.sample(frac=1, random_state=1)
    one, two = heads(plots.distance_by_depth(table)), heads(plots.distance_by_depth(shuffled))
    assert all(np.array_equal(one[head], two[head]) for head in one)


def test_uniform_attention_is_one_line_or_a_step_per_stage() -> None:
    one = lines(plots.distance_by_depth(attention_data.make("vit_b")), "uniform")
    assert [y.tolist() for _, y in one] == [[pytest.approx(116.49, abs=0.01)] * 2]
    four = lines(plots.distance_by_depth(attention_data.make("swin_t")), "uniform")
    assert [y[0] for _, y in four] == pytest.approx([14.44, 28.88, 57.75, 115.50], abs=0.01)
    assert [x.tolist() for x, _ in four] == [[-0.5, 1.5], [1.5, 3.5], [3.5, 9.5], [9.5, 11.5]]
    in_patches = lines(
        plots.distance_by_depth(attention_data.make("vit_b"), unit="patches"), "uniform"
    )
    assert in_patches[0][1][0] == pytest.approx(7.2808, abs=1e-4)


def test_the_end_of_a_stage_is_marked() -> None:
    ax = plots.distance_by_depth(attention_data.make("swin_t"))
    assert [x[0] for x, _ in lines(ax, "stage")] == [1.5, 3.5, 9.5]
    assert not lines(plots.distance_by_depth(attention_data.make("vit_b")), "stage")


def test_runs_stand_side_by_side_with_one_scale_and_one_legend() -> None:
    runs = {
        name: attention_data.make("vit_s", seed) for seed, name in enumerate(["LN", "IN", "DTN"])
    }
    figure = plots.attention_distance(runs, unit="patches")
    panels = [ax for ax in figure.axes if heads(ax)]
    assert [ax.get_title() for ax in panels] == ["LN", "IN", "DTN"]
    assert len({ax.get_ylim() for ax in panels}) == 1
    assert [ax.yaxis.get_tick_params()["labelleft"] for ax in panels] == [True, False, False]
    assert legend_words(figure) == [f"Head {i}" for i in range(1, 7)] + ["uniform attention"]
    low, high = panels[0].get_ylim()
    assert all(low < y < high for ax in panels for dots in heads(ax).values() for y in dots[:, 1])


@pytest.mark.parametrize(
    ("kind", "discrete"), [("one", True), ("vit_s", True), ("vit_b", False), ("deep", False)]
)
def test_up_to_eight_heads_are_listed_and_more_get_a_scale(kind: str, discrete: bool) -> None:
    figure = plots.attention_distance(attention_data.make(kind))
    count = attention_data.VITS[kind][0].heads
    assert any(ax.get_label() == "heads" for ax in figure.axes) is not discrete
    assert ("Head 1" in legend_words(figure)) is discrete
    drawn = [
        c.get_facecolor()[0]
        for c in figure.axes[0].collections
        if str(c.get_gid()).startswith("head ")
    ]
    assert len({tuple(colour) for colour in drawn}) == count


def test_the_colour_of_a_head_is_the_same_in_runs_of_few_and_of_many_heads() -> None:
    figure = plots.attention_distance(
        {"a": attention_data.make("vit_s"), "b": attention_data.make("vit_b")}
    )
    first, second = (
        next(c for c in ax.collections if c.get_gid() == "head 3").get_facecolor()[0]
        for ax in figure.axes[:2]
    )
    assert tuple(first) == tuple(second)


def test_a_table_without_uniform_std_or_depth_is_enough() -> None:
    table = attention_data.make("vit_s")[["layer", "head", "distance_px"]]
    figure = plots.attention_distance(table)
    assert "uniform attention" not in legend_words(figure)
    assert len(heads(figure.axes[0])) == 6
    assert "std" not in " ".join(legend_words(plots.sorted_heads(table)))


def test_sorted_heads_rise_and_carry_their_own_std() -> None:
    table = attention_data.make("vit_b")
    ax = plots.sorted_heads(table).axes[0]
    names = ["blocks.0.attn", "blocks.1.attn", "blocks.10.attn", "blocks.11.attn"]
    for name in names:
        ((x, y),) = lines(ax, name)
        own = table[table["layer"] == name].sort_values("distance_px")
        assert x.tolist() == list(range(1, 13))
        np.testing.assert_allclose(y, own["distance_px"])
        (bars,) = [c for c in ax.collections if c.get_gid() == f"std {name}"]
        np.testing.assert_allclose(
            [s[1, 1] - s[0, 1] for s in bars.get_segments()], 2 * own["distance_px_std"]
        )
    assert len([line for line in ax.lines if line.get_gid() in set(table["layer"])]) == len(names)


def test_sorted_heads_of_layers_asked_for_in_patches() -> None:
    table = attention_data.make("swin_t")
    ax = plots.sorted_distances(
        table, layers=["layers.3.blocks.1.attn", "layers.0.blocks.0.attn"], unit="patches"
    )
    ((_, y),) = lines(ax, "layers.3.blocks.1.attn")
    np.testing.assert_allclose(y, np.sort(table[table["depth"] == 11]["distance_patches"]))
    assert ax.get_xlim()[1] > 24
    with pytest.raises(
        UsageError, match=r"attention layer 'layers.3.attn' is unknown \(did you mean layers\.3"
    ):
        plots.sorted_heads(table, layers=["layers.3.attn"])


def test_prefix_mass_and_entropy_stand_above_each_other_with_their_means() -> None:
    table = attention_data.make("vit_b")
    above, below = plots.prefix_mass_and_entropy(table).axes[:2]
    for ax, column in ((above, "prefix_mass"), (below, "entropy")):
        np.testing.assert_allclose(heads(ax)[5][:, 1], table[table["head"] == 5][column])
        np.testing.assert_allclose(lines(ax, "mean")[0][1], table.groupby("depth")[column].mean())
    assert lines(below, "uniform")[0][1][0] == pytest.approx(np.log(197))


def test_without_prefix_tokens_there_is_no_panel_of_their_mass() -> None:
    figure = plots.prefix_mass_and_entropy(attention_data.make("swin_t"))
    assert [ax.get_ylabel() for ax in figure.axes if heads(ax)] == ["Entropy (nats)"]
    assert lines(figure.axes[0], "uniform")[0][1][0] == pytest.approx(np.log(49))


def test_the_entropy_of_uniform_attention_is_left_out_where_the_number_of_keys_is_not_known() -> (
    None
):
    """Queries that attend to fewer, pooled keys: their uniform distance differs from that of the
    grid.
    """
    table = attention_data.make("vit_b")
    assert np.isfinite(uniform_entropy(attention_heads.ordered(table))).all()
    assert np.isnan(
        uniform_entropy(
            attention_heads.ordered(table.assign(uniform_px=table["uniform_px"] * 1.006))
        )
    ).all()
    assert np.isnan(uniform_entropy(attention_heads.ordered(table.drop(columns="windows")))).all()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 5), (14, 14)])
def test_mean_distance_on_a_grid(rows: int, columns: int) -> None:
    y, x = np.indices((rows, columns)).reshape(2, -1)
    pairs = np.hypot(np.subtract.outer(y, y), np.subtract.outer(x, x))
    assert mean_distance(rows, columns) == pytest.approx(pairs.mean())


@pytest.mark.parametrize("kind", attention_data.VITS)
def test_the_heat_map_has_each_head_in_its_cell_and_blanks_where_a_layer_has_fewer(
    kind: str,
) -> None:
    table = attention_data.make(kind)
    ax = plots.distance_heatmap(table).axes[0]
    (mesh,) = [c for c in ax.collections if c.get_gid() == "heat"]
    values = np.ma.asarray(mesh.get_array())
    assert values.count() == len(table)
    for row in table.itertuples():
        assert values[row.head, row.depth] == pytest.approx(row.distance_px)


def test_cells_are_annotated_where_the_number_fits() -> None:
    def written(kind: str, **options: Any) -> list[str]:
        return [
            text.get_text()
            for text in plots.distance_heatmap(attention_data.make(kind), **options).axes[0].texts
        ]

    assert len(written("swin_t")) == 2 * 3 + 2 * 6 + 6 * 12 + 2 * 24
    assert (
        written("vit_s", unit="patches")[0]
        == f"{attention_data.make('vit_s')['distance_patches'][0]:.1f}"
    )
    assert written("deep") == []


def test_the_bar_of_the_heat_map_names_the_unit() -> None:
    bars = {
        unit: plots.distance_heatmap(attention_data.make("vit_s"), unit=unit).axes[1].get_ylabel()
        for unit in ("px", "patches")
    }
    assert bars == {
        "px": "Mean attention distance (px)",
        "patches": "Mean attention distance (patches)",
    }


@pytest.mark.parametrize(
    "draw",
    [plots.distance_by_depth, plots.entropy_by_depth, plots.distance_cells, plots.sorted_distances],
)
def test_a_panel_draws_into_the_axes_it_is_given(draw: Any) -> None:
    with plots.theme():
        ax = Figure().add_subplot()
    assert draw(attention_data.make("vit_s"), ax=ax) is ax
    assert ax.has_data()


@pytest.mark.parametrize(
    ("table", "options", "words"),
    [
        (attention_data.make("one").iloc[:0], {}, "no row"),
        (attention_data.make("one").drop(columns="distance_px"), {}, "no column distance_px"),
        ({}, {}, "no table"),
        (attention_data.make("one"), {"unit": "cm"}, "unit 'cm' is unknown; known: px, patches"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    table: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        plots.attention_distance(table, **options)


def test_a_head_that_is_not_a_number_leaves_a_gap() -> None:
    table = attention_data.make("vit_s")
    table.loc[3, "distance_px"] = np.nan
    figure = plots.attention_distance(table)
    assert np.isfinite(figure.axes[0].get_ylim()).all()
    assert len(plots.distance_heatmap(table).axes[0].texts) == len(table) - 1


def test_a_layer_called_twice_is_two_layers() -> None:
    table = attention_data.make("vit_s").assign(
        layer=lambda t: "attn#" + (t["depth"] + 1).astype(str)
    )
    labels = [
        tick.get_text() for tick in plots.distance_heatmap(table.iloc[6:]).axes[0].get_xticklabels()
    ]
    assert labels == [f"attn#{i}" for i in range(2, 13)]


def test_no_figure_is_left_open() -> None:
    before = plt.get_fignums()
    table = attention_data.make("vit_s")
    for draw in (
        plots.attention_distance,
        plots.sorted_heads,
        plots.prefix_mass_and_entropy,
        plots.distance_heatmap,
    ):
        assert isinstance(draw(table), Figure)
    assert plt.get_fignums() == before


def test_depth_of_the_table_wins_over_the_order_of_names() -> None:
    table = pd.concat(
        [attention_data.make("one").assign(layer=name, depth=d) for d, name in enumerate("cab")]
    )
    assert attention_heads.layer_names(attention_heads.ordered(table.iloc[::-1])) == ["c", "a", "b"]

"""By channel: the channels with the extremes stand out. By position: tokens lie on their lines."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from probe import plots
from probe.plots import colored, style
from support import figure_data


def of_gid(ax: Axes, start: str) -> dict[str, np.ndarray]:
    return {
        c.get_gid(): np.asarray(c.get_offsets())
        for c in ax.collections
        if (c.get_gid() or "").startswith(start)
    }


def test_the_channel_with_the_extremes_comes_first() -> None:
    tables = figure_data.make(count=1)
    assert colored.extreme_channels(tables.samples, 4)[0] == 3


def test_highlighted_channels_keep_their_own_points() -> None:
    """All stored elements of channel 3, uniform and tail, and none of them among the grey ones."""
    tables = figure_data.make(count=1)
    ax = plots.by_channel(tables.samples, [3])
    own = tables.samples[(tables.samples["channel"] == 3) & (tables.samples["stratum"] != "prefix")]
    shown = of_gid(ax, "channel")["channel 3"]
    assert {tuple(p) for p in shown} == {tuple(p) for p in own[["input", "normalized"]].to_numpy()}
    others = tables.samples[
        (tables.samples["channel"] != 3) & (tables.samples["stratum"] != "prefix")
    ]
    assert len(of_gid(ax, "others")["others"]) == len(others)


def test_each_channel_is_named_in_its_colour() -> None:
    ax = plots.by_channel(figure_data.make(count=1).samples, [3, 7])
    keys = {
        text.get_text(): to_hex(text.get_color()) for text in ax.texts if text.get_gid() == "key"
    }
    assert keys["3"] == style.HIGHLIGHTS[0]
    assert keys["7"] == style.HIGHLIGHTS[1]


def test_points_of_a_token_lie_on_its_line_of_slope_one_over_sigma() -> None:
    tables = figure_data.make(count=1)
    ax = plots.by_position(tables.samples, tables.rows, tokens=5)
    tokens, lines = (
        of_gid(ax, "token"),
        [line for line in ax.lines if line.get_gid() == "token line"],
    )
    assert len(tokens) == len(lines) == 5
    for points, line in zip(tokens.values(), lines, strict=True):
        (x0, x1), (z0, z1) = line.get_data()
        np.testing.assert_allclose(
            points[:, 1], z0 + (z1 - z0) / (x1 - x0) * (points[:, 0] - x0), atol=1e-4
        )
        assert len(points) == figure_data.CHANNELS


def test_tokens_are_chosen_over_the_whole_range_of_sigma() -> None:
    tables = figure_data.make(count=1)
    chosen = colored.chosen_tokens(tables.samples, tables.rows, 4)["sigma"].to_numpy()
    assert chosen[0] == tables.rows["sigma"].min()
    assert chosen[-1] == tables.rows["sigma"].max()
    assert (np.diff(chosen) > 0).all()


def test_layers_without_token_statistics_are_coloured_by_position() -> None:
    tables = figure_data.make("affine", 1)
    ax = plots.by_position(tables.samples, tables.rows)
    (scatter,) = [c for c in ax.collections if c.get_gid() == "position"]
    shown = tables.samples[tables.samples["stratum"] != "prefix"]
    assert set(np.asarray(scatter.get_array())) == set(shown["position"].astype(float))


def test_a_layer_of_nan_does_not_stop_the_figure() -> None:
    tables = figure_data.make("not_finite", 1)
    assert not of_gid(plots.by_channel(tables.samples), "channel")
    assert plots.by_position(tables.samples, tables.rows.assign(sigma=np.nan)).texts

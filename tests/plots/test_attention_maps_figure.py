"""Attention over an image: the right row of the right head, on the right patches, in one colour
scale.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probe import plots
from probe.errors import UsageError
from support import attention_data

GRID, PREFIX = (4, 6), 2
IMAGE = attention_data.photograph(64, 96)
WEIGHTS = attention_data.attention(3, GRID, PREFIX)


def drawn(ax: Axes) -> np.ndarray:
    """The weights over the image."""
    (found,) = [image for image in ax.images if image.get_gid() == "attention"]
    return np.asarray(found.get_array())


def framed(ax: Axes) -> list[tuple[float, ...]]:
    return [
        (*p.get_xy(), p.get_width(), p.get_height()) for p in ax.patches if p.get_gid() == "query"
    ]


def note(figure: Figure) -> str:
    (text,) = [text.get_text() for text in figure.texts if text.get_gid() == "query"]
    return text


def test_each_head_shows_its_row_of_the_query_patch_without_the_prefix() -> None:
    figure = plots.attention_maps(IMAGE, WEIGHTS, GRID, (2, 5))
    panels = figure.axes[1:4]
    assert [ax.get_title() for ax in figure.axes[:4]] == ["Image", "Head 1", "Head 2", "Head 3"]
    for head, ax in enumerate(panels):
        np.testing.assert_allclose(
            drawn(ax), WEIGHTS[head, PREFIX + 2 * 6 + 5, PREFIX:].reshape(GRID)
        )
    assert (
        note(figure) == "Query: patch in row 2, column 5 (framed); one colour scale for all heads"
    )


def test_the_query_patch_is_framed_in_every_panel_and_patches_tile_the_image() -> None:
    figure = plots.attention_maps(IMAGE, WEIGHTS, GRID, (2, 5))
    assert [framed(ax) for ax in figure.axes[:4]] == [[(5 * 16 - 0.5, 2 * 16 - 0.5, 16, 16)]] * 4
    (overlay,) = [image for image in figure.axes[1].images if image.get_gid() == "attention"]
    assert list(overlay.get_extent()) == [-0.5, 95.5, 63.5, -0.5]


@pytest.mark.parametrize(
    ("query", "words"), [(0, "Query: class token"), (1, "Query: prefix token 1 (0: class token)")]
)
def test_a_prefix_query_has_no_frame(query: int, words: str) -> None:
    figure = plots.attention_maps(IMAGE, WEIGHTS, GRID, query)
    np.testing.assert_allclose(drawn(figure.axes[2]), WEIGHTS[1, query, PREFIX:].reshape(GRID))
    assert note(figure).startswith(words)
    assert not any(framed(ax) for ax in figure.axes)


def test_an_index_beyond_the_prefix_is_a_patch() -> None:
    figure = plots.attention_maps(IMAGE, WEIGHTS, GRID, PREFIX + 7)
    assert note(figure).startswith("Query: patch in row 1, column 1 (framed)")


def test_all_heads_share_a_colour_scale_from_zero_to_the_largest_weight_on_a_patch() -> None:
    figure = plots.attention_maps(IMAGE, WEIGHTS, GRID, 0)
    scales = {ax.images[-1].get_clim() for ax in figure.axes[1:4]}
    assert scales == {(0.0, float(WEIGHTS[:, 0, PREFIX:].max()))}
    (bar,) = [ax for ax in figure.axes if ax.get_label() == "scale"]
    assert len(bar.get_xticks()) >= 3
    assert "Attention weight (\u221a scale)" in [text.get_text() for text in figure.texts]


def test_chosen_heads_keep_their_numbers() -> None:
    figure = plots.attention_maps(IMAGE, WEIGHTS, GRID, 0, heads=[2, 0])
    assert [ax.get_title() for ax in figure.axes[1:3]] == ["Head 3", "Head 1"]
    np.testing.assert_allclose(drawn(figure.axes[1]), WEIGHTS[2, 0, PREFIX:].reshape(GRID))


def test_rollout_shows_the_class_token_by_default_and_any_other_on_request() -> None:
    matrix = WEIGHTS.mean(0)
    for query, row in ((None, 0), (1, 1), ((1, 0), PREFIX + 6)):
        figure = plots.rollout(IMAGE, matrix, GRID, query)  # type: ignore[arg-type]
        np.testing.assert_allclose(drawn(figure.axes[1]), matrix[row, PREFIX:].reshape(GRID))


def test_rollout_without_prefix_tokens_is_the_mean_over_patches() -> None:
    matrix = attention_data.attention(1, GRID, 0)[0]
    figure = plots.rollout(IMAGE, matrix, GRID)
    np.testing.assert_allclose(drawn(figure.axes[1]), matrix.mean(0).reshape(GRID))
    assert note(figure) == "Mean over all patches of the last layer"


@pytest.mark.parametrize("shape", [GRID, (24,)])
def test_rollout_takes_shares_of_the_patches_as_they_are(shape: tuple[int, ...]) -> None:
    shares = np.linspace(0, 1, 24).reshape(shape)
    np.testing.assert_array_equal(
        drawn(plots.rollout(IMAGE, shares, GRID).axes[1]), shares.reshape(GRID)
    )


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((IMAGE, WEIGHTS, GRID, (4, 0)), {}, r"query patch \(4, 0\) is outside the grid of 4 x 6"),
        ((IMAGE, WEIGHTS, GRID, 26), {}, r"query token 26 given; there are 26 tokens \(0 to 25\)"),
        ((IMAGE, WEIGHTS, (7, 7), 0), {}, "N at least the 49 patches of 7 x 7"),
        (
            (IMAGE, WEIGHTS[0], GRID, 0),
            {},
            r"attention of shape \(26, 26\) given; \(heads, N, N\) is needed",
        ),
        ((IMAGE[:, :, 0], WEIGHTS, GRID, 0), {}, r"an image of shape \(64, 96\) given"),
        ((IMAGE, WEIGHTS, GRID, 0), {"heads": [3]}, r"3 heads \(0 to 2\) were passed"),
        ((IMAGE, WEIGHTS, GRID, 0), {"heads": []}, "choose one or more"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    arguments: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        plots.attention_maps(*arguments, **options)


def test_attention_that_is_zero_everywhere_is_drawn() -> None:
    ax = plots.attention_maps(IMAGE, np.zeros_like(WEIGHTS), GRID, 0).axes[1]
    assert drawn(ax).max() == 0
    assert ax.images[-1].get_clim() == (0.0, 1.0)


def test_no_figure_is_left_open() -> None:
    before = plt.get_fignums()
    plots.attention_maps(IMAGE, WEIGHTS, GRID, 0)
    plots.rollout(IMAGE, WEIGHTS[0], GRID)
    assert plt.get_fignums() == before

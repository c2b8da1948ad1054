"""Every figure, for models of every size and kind, at its printed size: text of 7 pt, inside the
figure, nothing on nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.figure import Figure

from probe import plots
from support import attention_data, figure_data

FRAME = plots.Frame(
    "vit_base_patch16_224, pretrained weights, 64 images", "random weights: nothing was learned"
)
RESNET = [
    "bn1",
    *(f"layer{i // 4 + 1}.{i % 4}.{n}" for i in range(16) for n in ("bn1", "bn2", "bn3")),
    *(f"layer{i}.0.downsample.1" for i in (1, 2, 3, 4)),
]
TORCHVISION = [f"encoder.layers.encoder_layer_{i // 2}.ln_{i % 2 + 1}" for i in range(24)] + [
    "encoder.ln"
]


def _selected(t: figure_data.Tables) -> list[str]:
    return t.names[:4]


def _with_tokens(t: figure_data.Tables) -> dict[str, object]:
    samples = t.samples.assign(
        tokens=["prefix" if p == 0 else "patch" for p in t.samples["position"]]
    )
    return dict(list(samples.groupby("layer")))


def _side(t: figure_data.Tables) -> plots.Side:
    return plots.Side("vit, 64 images: layer_norm 25", _selected(t), t.samples, t.fits, t.fan)


FIGURES: dict[str, Callable[[figure_data.Tables], Figure]] = {
    "s_curves": lambda t: plots.s_curve_grid(t.samples, t.fits, fan=t.fan, frame=FRAME),
    "by_channel": lambda t: plots.by_channel_grid(t.samples, _selected(t), frame=FRAME),
    "by_position": lambda t: plots.by_position_grid(t.samples, t.rows, _selected(t), frame=FRAME),
    "alpha": lambda t: plots.alpha_vs_inverse_std(t.alphas, frame=FRAME),
    "families": lambda t: plots.families_by_depth(t.fits, frame=FRAME),
    "tokens": lambda t: plots.token_grid(_with_tokens(t), t.fits, _selected(t), frame=FRAME),
    "extremes": lambda t: plots.extremes_by_depth(t.alphas, frame=FRAME),
    "compare": lambda t: plots.compare_grid(
        [_side(t), _side(figure_data.make("affine", 4))], frame=FRAME
    ),
}
# of models with layers that are affine per channel
AFFINE = FIGURES | {"lines": lambda t: plots.lines_by_depth(t.fan, frame=FRAME)}


@pytest.mark.parametrize("kind", FIGURES)
@pytest.mark.parametrize("mix", ["curved", "linear", "mixed"])
def test_a_small_model(kind: str, mix: str) -> None:
    """Four layers, all of one status or of four."""
    tables = figure_data.make(
        ["curved", "linear", "affine", "curved"] if mix == "mixed" else mix, 4
    )
    figure_data.check_legible(FIGURES[kind](tables))


@pytest.mark.parametrize(
    "kind", ["s_curves", "by_channel", "by_position", "alpha", "extremes", "lines", "compare"]
)
def test_an_affine_model(kind: str) -> None:
    """A BatchNorm network has no curve anywhere."""
    figure_data.check_legible(AFFINE[kind](figure_data.make("affine", 5)))


@pytest.mark.parametrize("kind", FIGURES)
def test_one_layer(kind: str) -> None:
    """A model with a single norm."""
    figure_data.check_legible(FIGURES[kind](figure_data.make("curved", 1)))


@pytest.mark.parametrize("kind", ["s_curves", "families", "extremes", "alpha"])
@pytest.mark.parametrize("names", [figure_data.layer_names(17), TORCHVISION], ids=["17", "25"])
def test_a_transformer(kind: str, names: list[str]) -> None:
    """17 and 25 layers, short and long names, curved first and linear later."""
    tables = figure_data.make(
        ["curved" if i < 7 else "linear" for i in range(len(names))], names=names
    )
    figure_data.check_legible(FIGURES[kind](tables))


@pytest.mark.parametrize("kind", ["s_curves", "extremes", "lines"])
def test_a_large_convnet(kind: str) -> None:
    """53 BatchNorms on one figure."""
    assert len(RESNET) == 53
    figure_data.check_legible(AFFINE[kind](figure_data.make("affine", names=RESNET)))


HEADS: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "distance": lambda t: plots.attention_distance(t, frame=FRAME),
    "distance of runs": lambda t: plots.attention_distance(
        {"layer norm": t, "in": t, "vit_base_patch16_224, dyt": t}, frame=FRAME
    ),
    "sorted": lambda t: plots.sorted_heads(t, frame=FRAME),
    "prefix mass and entropy": lambda t: plots.prefix_mass_and_entropy(t, frame=FRAME),
    "heat map": lambda t: plots.distance_heatmap(t, frame=FRAME),
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("model", attention_data.VITS)
def test_attention_heads(kind: str, model: str) -> None:
    """One layer to 48, 3 heads to 24, stages with more heads each."""
    figure_data.check_legible(HEADS[kind](attention_data.make(model)))


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("model", ["vit_b", "deep"])
def test_a_heading_of_several_lines_stands_above_the_panels(
    kind: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is longer than a column, and random weights."""
    name = "hf-hub:timm/vit_so150m2_patch16_reg1_gap_448.sbb_e200_in12k_ft_in1k"
    heading = f"{name}, pretrained weights, 112 images of 14 photographs"
    monkeypatch.setitem(globals(), "FRAME", replace(FRAME, heading=heading))
    figure = HEADS[kind](attention_data.make(model))
    figure_data.check_legible(figure)
    (text,) = [text for text in figure.texts if text.get_gid() == "heading"]
    assert (text.get_text().count("\n") > 0) == (figure.get_figwidth() < 7)
    assert max(ax.bbox.y1 for ax in figure.axes) < text.get_window_extent().y0


@pytest.mark.parametrize("heads", [1, 6, 24])
@pytest.mark.parametrize("grid", [(8, 8), (4, 7)])
def test_attention_over_an_image(heads: int, grid: tuple[int, int]) -> None:
    """Square and wide images."""
    image, weights = (
        attention_data.photograph(8 * grid[0], 8 * grid[1]),
        attention_data.attention(heads, grid, 1),
    )
    figure_data.check_legible(plots.attention_maps(image, weights, grid, (1, 2), frame=FRAME))
    figure_data.check_legible(plots.rollout(image, weights[0], grid, frame=FRAME))

"""Names, ticks, thinning and label placing."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

from probe.plots import layout, names, points, style, ticks
from support import figure_data


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.5, "0.5"),
        (200, "200"),
        (5000, "5k"),
        (-20000, "\u221220k"),
        (2e6, "2M"),
        (1.5e-5, "$1.5\u00b710^{-5}$"),
    ],
)
def test_tick_values_are_short(value: float, text: str) -> None:
    assert ticks.short_tick(value) == text


def test_the_model_itself_has_no_name() -> None:
    assert names.short_names(["", "norm"]) == {"": "", "norm": "norm"}


def test_names_that_fit_stay() -> None:
    assert names.short_names(["blocks.0.norm1", "norm"]) == {
        "blocks.0.norm1": "blocks.0.norm1",
        "norm": "norm",
    }


@pytest.mark.parametrize("width", [6, 10, 16, 24])
def test_shortened_names_are_short_and_unique(width: int) -> None:
    every = [
        f"model.encoder.layers.encoder_layer_{i}.{n}"
        for i in range(24)
        for n in ("ln_1", "ln_2", "attn.q_norm#1", "attn.q_norm#2")
    ]
    short = names.short_names(every, width)
    assert max(map(len, short.values())) <= width
    if width >= 10:
        assert len(set(short.values())) == len(every)


def test_shortening_keeps_the_numbers() -> None:
    assert (
        names.short_names(["layer3.5.downsample.1", "layer4.0.bn1"], 16)["layer3.5.downsample.1"]
        == "layer3.5.down.1"
    )


LEARNED = ("attention.output.LayerNorm", "output.LayerNorm")
# the layers of a model -> one of them, at 15 characters and at 10
MODELS = {
    "BEiT and BERT of transformers": (
        ["embeddings.LayerNorm", *(f"encoder.layer.{i}.{n}" for i in range(12) for n in LEARNED)],
        {"encoder.layer.1.output.LayerNorm": ("1.output", "1.output")},
    ),
    "ViT of transformers": (
        [
            *(
                f"vit.encoder.layer.{i}.layernorm_{n}"
                for i in range(12)
                for n in ("before", "after")
            ),
            "vit.layernorm",
        ],
        {"vit.encoder.layer.11.layernorm_after": ("11.ln_after", "11.ln_afte")},
    ),
    "Swin": (
        [
            "patch_embed.norm",
            *(f"layers.{s}.blocks.{i}.norm{n}" for s in range(4) for i in range(6) for n in (1, 2)),
            *(f"layers.{s}.downsample.norm" for s in range(1, 4)),
            "norm",
        ],
        {
            "layers.2.blocks.5.norm1": ("2.5.norm1", "2.5.norm1"),
            "layers.1.downsample.norm": ("1.down.norm", "1.dow.nor"),
            "patch_embed.norm": ("patch_embe.norm", "patch.norm"),
        },
    ),
    "ConvNeXt": (
        [
            "stem.1",
            *(f"stages.{s}.blocks.{i}.norm" for s in range(4) for i in range(3)),
            *(f"stages.{s}.downsample.0" for s in range(1, 4)),
            "head.norm",
        ],
        {
            "stages.1.blocks.2.norm": ("1.2.norm", "1.2.norm"),
            "stages.1.downsample.0": ("1.downsample.0", "1.down.0"),
            "stem.1": ("stem.1", "stem.1"),
        },
    ),
    "ViT of torchvision": (
        [
            *(f"encoder.layers.encoder_layer_{i}.ln_{n}" for i in range(12) for n in (1, 2)),
            "encoder.ln",
        ],
        {"encoder.layers.encoder_layer_11.ln_2": ("11.ln_2", "11.ln_2")},
    ),
    "CLIP of transformers": (
        [
            *(f"text_model.encoder.layers.{i}.layer_norm{n}" for i in range(12) for n in (1, 2)),
            "text_model.final_layer_norm",
            "vision_model.pre_layrnorm",
            *(f"vision_model.encoder.layers.{i}.layer_norm{n}" for i in range(12) for n in (1, 2)),
        ],
        {
            "text_model.encoder.layers.11.layer_norm2": ("text.11.ln2", "tex.11.ln2"),
            "vision_model.encoder.layers.1.layer_norm2": ("vision.1.ln2", "visi.1.ln2"),
        },
    ),
    "ResNet-50": (
        [
            "bn1",
            *(f"layer{s}.{i}.bn{n}" for s in (1, 2, 3, 4) for i in (0, 1) for n in (1, 2, 3)),
            *(f"layer{s}.0.downsample.1" for s in (1, 2, 3, 4)),
        ],
        {
            "layer3.0.downsample.1": ("layer3.0.down.1", "3.0.down.1"),
            "layer3.1.bn2": ("layer3.1.bn2", "3.1.bn2"),
        },
    ),
}


@pytest.mark.parametrize("model", MODELS)
def test_names_lose_what_says_nothing_before_they_lose_letters(model: str) -> None:
    every, expected = MODELS[model]
    for at, width in enumerate((15, 10)):
        short = names.short_names(every, width)
        assert {name: short[name] for name in expected} == {
            name: texts[at] for name, texts in expected.items()
        }
        assert len(set(short.values())) == len(every)
        assert max(map(len, short.values())) <= width


def test_names_that_differ_in_the_middle_of_a_long_word_stay_two() -> None:
    every = [f"blocks.0.{n}.bn" for n in ("pointwise_expand", "pointwise_project")]
    assert len(set(names.short_names(every, 9).values())) == 2


def test_the_stride_sees_all_channels_and_all_rows() -> None:
    """512 rows of 64 channels, stored channel by channel: a stride of 8 would see only every eighth
    row.
    """
    step = points.coprime_step(512 * 64, 4096, 64, 512)
    taken = np.arange(0, 512 * 64, step)
    assert len(taken) <= 4096
    assert len(set(taken // 512)) == 64
    assert len(set(taken % 512)) == 512


def test_thinning_is_a_pure_function_that_keeps_the_tail() -> None:
    samples = figure_data.make(count=1).samples
    one, two = points.thin(samples, 10), points.thin(samples, 10)
    assert one.equals(two)
    assert (one["stratum"] == "tail").sum() == figure_data.TAIL
    assert (one["stratum"] == "uniform").sum() <= 10


def test_elements_that_are_not_finite_are_not_drawn() -> None:
    samples = figure_data.make(count=1).samples
    samples.loc[samples.index[:5], "normalized"] = np.inf
    assert np.isfinite(points.thin(samples)["normalized"]).all()


def test_labels_keep_their_order_and_their_distance() -> None:
    placed = layout.spread([0.5, 0.51, 0.2, 0.505], 0.1, 0.0, 1.0)
    assert np.argsort(placed).tolist() == [2, 0, 3, 1]
    assert np.diff(np.sort(placed)).min() >= 0.1 - 1e-12
    assert placed[2] == pytest.approx(0.2)


def test_labels_stay_inside() -> None:
    placed = layout.spread([0.97, 0.98, 0.99], 0.1, 0.0, 1.0)
    assert max(placed) <= 1.0 + 1e-12


PRETRAINED = ", pretrained weights, 112 images of 14 photographs"


@pytest.mark.parametrize("width", [style.ONE_COLUMN, 4.2, style.TWO_COLUMN])
@pytest.mark.parametrize(
    "name",
    [
        "resnet50",
        "bundled:vit_cifar10",
        "timm:vit_base_patch16_clip_224.laion2b_ft_in12k_in1k",
        "hf-hub:timm/vit_so150m2_patch16_reg1_gap_448.sbb_e200_in12k_ft_in1k",  # over a column
    ],
)
def test_the_name_of_a_model_is_readable_in_full_at_every_width(name: str, width: float) -> None:
    lines = layout.heading_lines(name + PRETRAINED, width)
    assert "".join(lines).replace(" ", "") == (name + PRETRAINED).replace(" ", "")
    assert max(map(len, lines)) <= (width - 0.2) / layout.CHARACTER
    assert len(lines) == 1 or all(line[-1] in ",_" for line in lines[:-1])


def test_a_heading_of_one_line_stays_as_it_is_and_a_longer_one_is_parted_at_a_comma() -> None:
    assert layout.heading_lines("resnet50" + PRETRAINED, 4.2) == ["resnet50" + PRETRAINED]
    assert layout.heading_lines("resnet50" + PRETRAINED, 3.5) == [
        "resnet50, pretrained weights,",
        "112 images of 14 photographs",
    ]
    assert layout.heading_lines("", 3.5) == []


@pytest.mark.parametrize(
    ("heading", "beginning", "end"),
    [
        (f"{'folder/' * 40}last.pt{PRETRAINED}", "folder/folder/", f"\u2026{PRETRAINED}"),
        ("a" * 1000, "a" * 50, "a\u2026"),
        (f"vit, {'photographs of ' * 40}", "vit, photographs of", "\u2026"),
    ],
    ids=["name", "letters", "images"],
)
def test_a_heading_too_long_for_its_lines_loses_the_end_of_the_name_or_else_its_own(
    heading: str, beginning: str, end: str
) -> None:
    lines = layout.heading_lines(heading, 3.5)
    assert len(lines) == layout.MOST_LINES
    assert max(map(len, lines)) <= 3.3 / layout.CHARACTER
    text = " ".join(lines).replace("/ ", "/")
    assert text.startswith(beginning)
    assert text.endswith(end)


def test_the_theme_is_that_of_seaborn_but_for_what_is_chosen_here() -> None:
    seaborn = pytest.importorskip("seaborn", minversion="0.13")
    look = seaborn.axes_style("ticks") | seaborn.plotting_context("paper") | style._RC
    del look["image.cmap"]  # a map that seaborn alone has; no figure takes the default
    with mpl.rc_context(look):
        expected = dict(mpl.rcParams)
    with style.theme():
        names = expected.keys() - {"backend"}  # found at first use
        assert {name: mpl.rcParams[name] for name in names} == {
            name: expected[name] for name in names
        }

"""What is read, what is named as unreadable, what the user may say, and that nothing stays behind
on the model.
"""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from probe.models.attention import AttentionProbe
from support.attention_models import images, randomized, read, small_vit

# what cannot be read


UNREADABLE = {
    "convit_tiny": (
        {"depth": 1, "local_up_to_layer": 1, "img_size": 64},
        64,
        {"GPSA": "mixed with another"},
    ),
    "xcit_nano_12_p16_224": (
        {"depth": 1},
        64,
        {"XCA": "channel attention", "ClassAttn": "queries are not patches"},
    ),
    "efficientvit_b0": ({}, 64, {"LiteMLA": "linear attention"}),
    "cait_xxs24_224": (
        {"depth": 1, "img_size": 64},
        64,
        {"TalkingHeadAttn": "mixed", "ClassAttn": "queries are not patches"},
    ),
    "hiera_tiny_224": ({"stages": (1, 1, 1, 1)}, 224, {"MaskUnitAttention": "order"}),
    "edgenext_xx_small": ({}, 64, {"CrossCovarianceAttn": "channel attention"}),
    "mobilevitv2_050": ({}, 64, {"LinearSelfAttention": "linear attention"}),
    "resnest14d": ({}, 64, {"SplitAttn": "no attention between tokens"}),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_other_attention_is_named_with_its_reason_and_gets_no_number(name: str) -> None:
    options, side, expected = UNREADABLE[name]
    module = timm.create_model(name, **options).eval()
    probe = read(module, (side, side))
    assert probe.rows() == []
    found = {
        type(module.get_submodule(path)).__name__: reason
        for path, reason in probe.unreadable.items()
    }
    assert found.keys() == expected.keys()
    for kind, reason in expected.items():
        assert reason in found[kind]


def test_channel_attention_between_window_attention_is_left_out() -> None:
    module = timm.create_model(
        "davit_tiny", depths=(1, 1), embed_dims=(24, 48), num_heads=(2, 2)
    ).eval()
    probe = read(module, (224, 224), count=1)
    assert [(row["grid"], row["windows"]) for row in probe.rows()[::2]] == [
        ("56x56", 64),
        ("28x28", 16),
    ]
    assert set(probe.unreadable.values()) == {
        "channel attention: its scores are between channels, not tokens"
    }


def test_a_network_without_attention_gives_no_rows_and_names_nothing() -> None:
    probe = read(timm.create_model("resnet18").eval())
    assert (probe.rows(), probe.unreadable, probe.calls) == ([], {}, 0)


def test_attention_that_no_function_shows_is_named() -> None:
    class OwnAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            scores = self.q(x) @ x.transpose(1, 2)
            weights = (scores - scores.amax(-1, keepdim=True)).exp()
            return weights / weights.sum(-1, keepdim=True) @ x

    module = nn.Sequential(nn.Flatten(2), nn.Linear(16, 8), OwnAttention())
    assert read(module, (4, 4)).unreadable == {"2": "no attention call was seen in it"}


def test_a_softmax_that_is_no_attention_is_not_counted() -> None:
    class Gated(nn.Module):
        """Softmax over classes, over channels, over experts and over a vector per image."""

        def __init__(self) -> None:
            super().__init__()
            self.vit, self.experts = small_vit(), nn.Linear(24, 17)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.vit.forward_features(x)
            gates = self.experts(tokens).softmax(-1)
            channels = torch.softmax(tokens.transpose(1, 2) @ tokens, -1)
            return (
                F.softmax((tokens @ channels).mean(1), dim=-1)
                + nn.Softmax(-1)(gates.mean((1, 2)))[:, None]
            )

    probe = read(Gated())
    assert probe.calls == 1
    assert {row["layer"] for row in probe.rows()} == {"vit.blocks.0.attn"}
    assert probe.unreadable == {}


class Between(nn.Module):
    """Fused attention of 16 tokens of 9 channels, between the tokens or between the channels."""

    def __init__(self, channels: bool) -> None:
        super().__init__()
        self.scale, self.channels = nn.Parameter(torch.tensor(3.0)), channels

    def forward(self, tokens: Tensor) -> Tensor:
        x = (tokens.transpose(1, 2) if self.channels else tokens)[:, None] * self.scale
        return F.scaled_dot_product_attention(x, x, x)


def between(channels: bool) -> AttentionProbe:
    module = nn.Sequential(nn.Conv2d(3, 9, 16, 16), nn.Flatten(2), Transposed(), Between(channels))
    return read(randomized(module))


class Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def test_channels_are_not_taken_for_tokens_although_they_would_make_a_square() -> None:
    assert [row["grid"] for row in between(channels=False).rows()] == ["4x4"]
    probe = between(channels=True)
    assert probe.rows() == []
    assert probe.unreadable == {
        "3": "channel attention: its scores are between channels, not tokens"
    }


def test_masked_and_pruned_tokens_are_not_taken_for_a_coarser_grid() -> None:
    """Four of sixteen patches are a square number of tokens, but no 2 x 2 grid."""
    module = small_vit()
    module.pos_drop = nn.Module()
    module.pos_drop.forward = lambda x: x[:, :5]
    probe = read(module)
    assert probe.rows() == []
    assert "some were dropped" in probe.unreadable["blocks.0.attn"]


# what is read


@pytest.mark.parametrize("fused", [True, False])
def test_fused_and_explicit_attention_give_the_same_numbers(fused: bool) -> None:
    module = small_vit()
    module.blocks[0].attn.fused_attn = fused
    values = [row["distance_px"] for row in read(module).rows()]
    np.testing.assert_allclose(
        values, [row["distance_px"] for row in read(small_vit()).rows()], rtol=1e-5
    )


class SelfAttention(nn.Module):
    """Attention of two heads, with the softmax under any of its names."""

    def __init__(self, softmax) -> None:
        super().__init__()
        self.q, self.softmax, self.num_heads = nn.Linear(8, 8), softmax, 2

    def forward(self, x: Tensor) -> Tensor:
        heads = self.q(x).unflatten(-1, (2, 4)).transpose(1, 2)
        return (self.softmax(heads @ heads.transpose(-1, -2)) @ heads).transpose(1, 2).flatten(2)


class Embedded(nn.Module):
    def __init__(self, softmax) -> None:
        super().__init__()
        self.patches, self.attn = nn.Conv2d(3, 8, 16, 16), SelfAttention(softmax)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(self.patches(x).flatten(2).transpose(1, 2))


SOFTMAXES = {
    "Tensor.softmax": lambda s: s.softmax(dim=-1),
    "torch.softmax": lambda s: torch.softmax(s, -1),
    "torch.special.softmax": lambda s: torch.special.softmax(s, 3),
    "F.softmax": lambda s: F.softmax(s, dim=3),
    "F.softmax with dtype": lambda s: F.softmax(input=s, dim=-1, dtype=torch.float32),
    "nn.Softmax": nn.Softmax(dim=-1),
}


@pytest.mark.parametrize("name", SOFTMAXES)
def test_an_explicit_softmax_is_read_once_under_each_of_its_names(name: str) -> None:
    probe = read(randomized(Embedded(SOFTMAXES[name])))
    assert probe.calls == 1
    assert [
        (row["layer"], row["head"], row["grid"], row["token_stride"]) for row in probe.rows()
    ] == [
        ("attn", 0, "4x4", 16),
        ("attn", 1, "4x4", 16),
    ]


def test_a_softmax_over_queries_is_not_attention() -> None:
    assert read(randomized(Embedded(lambda s: s.softmax(-2)))).calls == 0


MHA = {
    "batch first": {"batch_first": True},
    "sequence first": {},
    "key bias": {"batch_first": True, "add_bias_kv": True},
    "zero attention": {"batch_first": True, "add_zero_attn": True},
    "own key width": {"batch_first": True, "kdim": 24, "vdim": 24},
}


class WithMHA(nn.Module):
    def __init__(self, weights: bool, **options: object) -> None:
        super().__init__()
        self.patches, self.mha = nn.Conv2d(3, 24, 16, 16), nn.MultiheadAttention(24, 3, **options)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = tokens if self.mha.batch_first else tokens.transpose(0, 1)
        return self.mha(
            tokens, tokens, tokens, need_weights=self.weights, average_attn_weights=False
        )[int(self.weights)]


@pytest.mark.parametrize("weights", [True, False], ids=["with weights", "fused"])
@pytest.mark.parametrize("name", MHA)
def test_multi_head_attention_is_read_in_every_layout(name: str, weights: bool) -> None:
    """Keys that the module adds after those of the tokens are no patches."""
    module = randomized(WithMHA(weights, **MHA[name]))
    probe = read(module, (64, 32), count=3)
    module.weights = True
    with torch.no_grad():
        maps = module(images(3, (64, 32))).double().numpy()
    places = np.array([(r * 16, c * 16) for r in range(4) for c in range(2)])
    distances = np.sqrt(((places[:, None] - places[None]) ** 2).sum(-1))
    mass = maps[..., :8].sum(-1)
    expected = {
        "distance_px": ((maps[..., :8] * distances).sum(-1) / mass).mean((0, 2)),
        "prefix_mass": 1 - mass.mean((0, 2)),
        "entropy": -(maps * np.log(np.maximum(maps, 1e-300))).sum(-1).mean((0, 2)),
    }
    for column, values in expected.items():
        np.testing.assert_allclose(
            [row[column] for row in probe.rows()], values, rtol=1e-5, atol=1e-6
        )


def test_a_module_called_twice_is_two_layers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Embedded(SOFTMAXES["nn.Softmax"])

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.inner(x)
            return self.inner.attn(tokens)

    rows = read(randomized(Twice())).rows()
    assert [(row["layer"], row["depth"]) for row in rows] == [("inner.attn#1", 0)] * 2 + [
        ("inner.attn#2", 1)
    ] * 2


def test_grid_attention_counts_the_pixels_between_its_spread_tokens() -> None:
    module = torchvision.models.MaxVit((64, 64), 8, 2, [8], [1], 4, 0.0, mlp_ratio=1).eval()
    rows = {
        row["layer"].split(".")[-3]: row for row in read(module, count=1).rows() if row["head"] == 0
    }
    assert [(row["grid"], row["windows"], row["token_stride"]) for row in rows.values()] == [
        ("16x16", 64, 4.0)
    ] * 2
    assert rows["grid_attention"]["uniform_px"] == pytest.approx(
        8 * rows["window_attention"]["uniform_px"]
    )


def test_pooled_keys_lie_evenly_over_the_image() -> None:
    module = timm.create_model(
        "pvt_v2_b0", depths=(1, 1, 1, 1), embed_dims=(8, 8, 8, 8), num_heads=(1, 1, 1, 1)
    ).eval()
    rows = read(module, (128, 128), count=1).rows()
    assert [(row["grid"], row["token_stride"]) for row in rows] == [
        ("32x32", 4),
        ("16x16", 8),
        ("8x8", 16),
        ("4x4", 32),
    ]
    queries, keys = ([(i + 0.5) * step for i in range(128 // step)] for step in (4, 32))
    expected = np.mean(
        [np.hypot(a - c, b - d) for a in queries for b in queries for c in keys for d in keys]
    )
    assert rows[0]["uniform_px"] == pytest.approx(expected)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_tokens_that_fill_up_swin_windows_are_left_out(library: str) -> None:
    """All patches attend to all of their window alike: then the distance is that among the real
    tokens.
    """
    if library == "timm":
        module = timm.create_model(
            "swin_tiny_patch4_window7_224",
            img_size=40,
            embed_dim=8,
            depths=(2,),
            num_heads=(1,),
            always_partition=True,
        )
    else:
        module = torchvision.models.SwinTransformer([4, 4], 8, [2], [1], [7, 7])
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "qkv" in name or "bias_table" in name:
                parameter.zero_()
    rows = read(module.eval(), (40, 40), count=1).rows()
    assert [(row["grid"], row["windows"]) for row in rows] == [("10x10", 4), ("10x10", 4)]
    assert rows[0]["distance_px"] == pytest.approx(rows[0]["uniform_px"], rel=1e-5)
    seven = np.mean(
        [
            4 * np.hypot(a - c, b - d)
            for a in range(7)
            for b in range(7)
            for c in range(7)
            for d in range(7)
        ]
    )
    assert rows[0]["uniform_px"] < seven
    assert rows[0]["prefix_mass"] > 0.1


def test_padding_tokens_stay_out() -> None:
    module, x = small_vit(), images(2, (64, 64))
    valid = np.ones((2, 17), bool)
    valid[1, 9:] = False
    with_prefix, without = AttentionProbe(module), AttentionProbe(module)
    for probe, mask in ((with_prefix, valid), (without, valid[:, 1:])):
        with probe, torch.no_grad():
            probe.begin(2, (64, 64), mask)
            module(x)
    assert with_prefix.rows() == without.rows()
    assert with_prefix.rows()[0]["distance_px"] < read(module).rows()[0]["distance_px"]


def test_without_an_input_size_that_of_the_input_counts() -> None:
    module = small_vit()
    probe = AttentionProbe(module)
    with probe, torch.no_grad():
        probe.begin(2, None)
        module(images(2, (64, 64)))
    assert probe.rows() == read(module).rows()

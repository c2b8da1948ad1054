"""Tokens that are followed through stages, poolings and other tokens: equal to brute force with
places written down by hand.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from probe.models.attention import AttentionProbe
from support.attention_models import images, randomized, read
from support.followed_maps import centres, distance, softmax_maps

Axis = tuple[int, float, float]  # tokens along a side, pixels between them, the first


@dataclass(frozen=True)
class Followed:
    build: Callable[[], nn.Module]
    side: int
    layers: tuple[tuple[Axis, Axis], ...]  # queries, keys


def same(side: int, step: float) -> tuple[Axis, Axis]:
    return (side, step, 0.0), (side, step, 0.0)


LEVIT = (
    *[same(14, 16)] * 2,
    ((7, 32, 0.0), (14, 16, 0.0)),  # every second token asks: it stands where it stood
    *[same(7, 32)] * 3,
    ((4, 64, 0.0), (7, 32, 0.0)),
    *[same(4, 64)] * 4,
)
# a pooled key stands in the middle of 8x8, 4x4, 2x2 tokens
PVT = (
    ((16, 4, 0.0), (2, 32, 14.0)),
    ((8, 8, 0.0), (2, 32, 12.0)),
    ((4, 16, 0.0), (2, 32, 8.0)),
    same(2, 32),
)
ONE = {"depths": (1, 1, 1, 1), "embed_dims": (8, 8, 8, 8), "num_heads": (1, 1, 1, 1)}

CASES = {
    "levit": Followed(lambda: timm.create_model("levit_128s"), 224, LEVIT),
    "pvt v2": Followed(lambda: timm.create_model("pvt_v2_b0", **ONE), 64, PVT),
}


@pytest.mark.parametrize("name", CASES)
def test_followed_tokens_agree_with_brute_force(name: str) -> None:
    case = CASES[name]
    module, x = randomized(case.build()), images(2, (case.side, case.side))
    if name == "levit":
        module = case.build().eval()  # batch norms of random weights leave no finite scores
    rows, maps = read(module, (case.side, case.side)).rows(), softmax_maps(module, x)
    assert len(maps) == len(case.layers)
    for depth, (layer, (queries, keys)) in enumerate(zip(maps, case.layers, strict=True)):
        expected = distance(layer, centres(queries[0], *queries), centres(keys[0], *keys))
        mine = [row for row in rows if row["depth"] == depth]
        assert {(row["grid"], row["token_stride"]) for row in mine} == {
            (f"{queries[0]}x{queries[0]}", queries[1])
        }
        np.testing.assert_allclose([row["distance_px"] for row in mine], expected, rtol=1e-5)


@pytest.mark.slow
def test_the_last_stage_of_efficientvit_has_the_stride_of_its_convolutions() -> None:
    probe = read(timm.create_model("efficientvit_m0").eval(), (224, 224), count=1)
    strides = {row["grid"]: row["token_stride"] for row in probe.rows()}
    assert strides == {"14x14": 16, "7x7": 32, "4x4": 64}


@pytest.fixture(scope="module")
def transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers")


def test_detection_tokens_behind_the_patches_are_no_patches(transformers: Any) -> None:
    config = transformers.YolosConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=32,
        image_size=[96, 96],
        num_detection_tokens=13,
    )
    module = randomized(transformers.YolosModel._from_config(config, attn_implementation="eager"))
    x, probe = images(2, (96, 96)), AttentionProbe(module)
    with probe, torch.no_grad():
        probe.begin(2, (96, 96))
        module(pixel_values=x)
    maps = softmax_maps(module, pixel_values=x)
    patches = centres(6, 6, 16.0)
    for depth, layer in enumerate(maps):
        rows = [row for row in probe.rows() if row["depth"] == depth]
        assert {(row["grid"], row["prefix_tokens"]) for row in rows} == {("6x6", 1)}
        np.testing.assert_allclose(
            [row["distance_px"] for row in rows], distance(layer, patches, patches, 1), rtol=1e-5
        )
        others = 1 - layer[:, :, 1:37, 1:37].sum(-1).mean((0, 2)).numpy()
        np.testing.assert_allclose([row["prefix_mass"] for row in rows], others, rtol=1e-5)


class Stages(nn.Module):
    """Convolutions whose strides do not divide the image, then attention over what is left."""

    def __init__(self, patch: tuple[int, int, int], pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        kernel, stride, padding = patch
        self.patches, self.pool = nn.Conv2d(3, 8, kernel, stride, padding), pool
        self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.patches(x)
        tokens, keys = (t.flatten(2).transpose(1, 2) for t in (maps, self.pool(maps)))
        q, k = self.q(tokens)[:, None], self.k(keys)[:, None]
        return F.scaled_dot_product_attention(q, k, k)


# (kernel, stride, padding), pooling of the keys -> grid, stride, side of the keys, step, first
POOLED = {
    "convolution that reaches over the border": ((7, 4, 3), lambda m: m, 10, 4.0, (10, 4.0, 0.0)),
    "convolution without padding": ((3, 3, 0), lambda m: m, 12, 3.0, (12, 3.0, 0.0)),
    "average of 2x2": (
        (4, 4, 0),
        lambda m: F.avg_pool2d(m, 2),
        9,
        4.0,
        (4, 8.0, 2.0),
    ),
    "overlapping maximum": (
        (4, 4, 0),
        lambda m: F.max_pool2d(m, 3, 2, 1),
        9,
        4.0,
        (5, 8.0, 0.0),
    ),
    "every third": ((4, 4, 0), lambda m: m[:, :, ::3, ::3], 9, 4.0, (3, 12.0, 0.0)),
    "means of 3x3 by shape": (
        (4, 4, 0),
        lambda m: m.unflatten(3, (3, 3)).unflatten(2, (3, 3)).mean((3, 5)),
        9,
        4.0,
        (3, 12.0, 4.0),
    ),
    "adaptive": ((4, 4, 0), lambda m: F.adaptive_avg_pool2d(m, 3), 9, 4.0, (3, 12.0, 4.0)),
}


@pytest.mark.parametrize("name", POOLED)
def test_keys_pooled_in_two_dimensions_stand_in_the_middle_of_what_they_pool(name: str) -> None:
    patch, pool, side, stride, keys = POOLED[name]
    module = randomized(Stages(patch, pool))
    size = (37, 37)
    row = read(module, size).rows()[0]
    assert (row["grid"], row["token_stride"]) == (f"{side}x{side}", stride)
    (layer,) = softmax_maps(module, images(2, size))
    expected = distance(layer, centres(side, side, stride), centres(keys[0], *keys))
    assert row["distance_px"] == pytest.approx(expected[0], rel=1e-5)


def test_patches_cut_by_reshape_are_followed() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.attn = nn.Linear(192, 8), nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = x.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).permute(0, 2, 4, 3, 5, 1)
            x = self.embed(x.flatten(3).flatten(1, 2))
            return self.attn(x, x, x, need_weights=False)[0]

    row = read(randomized(Cut()), (32, 48)).rows()[0]
    assert (row["grid"], row["token_stride"]) == ("4x6", 8.0)


class Rolled(nn.Module):
    """Windows of 2x2 tokens after the map was shifted by one, with or without a mask."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.patches, self.masked = nn.Conv2d(3, 8, 4, 4), masked

    def forward(self, x: Tensor) -> Tensor:
        maps = self.patches(x).roll((-1, -1), (2, 3))
        rows = torch.arange(8).roll(-1)[:, None].expand(8, 8)
        windows, row, column = (
            t.unflatten(-1, (4, 2))
            .unflatten(-3, (4, 2))
            .movedim(-2, -3)
            .flatten(-2)
            .flatten(-3, -2)
            for t in (maps, rows, rows.T)
        )
        q = windows.permute(0, 2, 3, 1).flatten(0, 1)[:, None]
        near = ((row[:, :, None] - row[:, None]).abs() < 2) & (
            (column[:, :, None] - column[:, None]).abs() < 2
        )
        mask = near.repeat(len(x), 1, 1)[:, None] if self.masked else None
        return F.scaled_dot_product_attention(q, q, q, attn_mask=mask)


@pytest.mark.parametrize("masked", [True, False])
def test_shifted_windows_are_read_only_if_a_mask_keeps_opposite_borders_apart(masked: bool) -> None:
    probe = read(randomized(nn.Sequential(Rolled(masked))), (32, 32))
    assert [(row["grid"], row["windows"]) for row in probe.rows()] == (
        [("8x8", 16)] if masked else []
    )
    assert masked or "opposite borders" in probe.unreadable["0"]

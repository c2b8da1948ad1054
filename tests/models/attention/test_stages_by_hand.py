"""Stages, windows and pooled keys of timm and transformers: equal to brute force with places that
are written down by hand, or refused by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from torch import Tensor, nn

from probe.models.attention import AttentionProbe
from support.attention_models import images, randomized
from support.followed_maps import centres, distance, softmax_maps

Axis = tuple[int, float, float]  # tokens along a side, pixels between them, the first


@dataclass(frozen=True)
class Layer:
    """Where the queries and the keys of one window are; all windows of a layer are alike."""

    queries: Axis
    keys: Axis
    windows: int = 1
    prefix: int = 0

    @property
    def grid(self) -> str:
        side = round(self.queries[0] * self.windows**0.5)
        return f"{side}x{side}"


@dataclass(frozen=True)
class Stages:
    build: Callable[[Any], nn.Module]
    side: int
    layers: tuple[Layer, ...]


def same(side: int, step: float, windows: int = 1) -> Layer:
    return Layer((side, step, 0.0), (side, step, 0.0), windows)


def pooled(side: int, step: float, keys: int, first: float = 0.0, prefix: int = 0) -> Layer:
    return Layer((side, step, 0.0), (keys, step * side / keys, first), prefix=prefix)


def sharp(module: nn.Module, side: int, *names: str) -> nn.Module:
    """Heads far from uniform, where random batch norms would leave no finite scores: the modules
    that make queries and keys get outputs of a standard deviation of 2.
    """

    def widen(child: nn.Module, _: Any, out: Tensor) -> Tensor:
        factor = 2 / out.std()
        for parameter in child.parameters():
            parameter.mul_(factor)
        return out * factor

    chosen = [child for name, child in module.named_modules() if name.endswith(names)]
    hooks = [child.register_forward_hook(widen) for child in chosen]
    with torch.no_grad():
        module.eval()(images(2, (side, side)))
    for hook in hooks:
        hook.remove()
    return module


def mvit(_: Any) -> nn.Module:
    config = MultiScaleVitCfg(depths=(1, 1, 1, 1), embed_dim=8, num_heads=1)
    return randomized(MultiScaleVit(config, img_size=64, num_classes=2))


def mobilenet(_: Any) -> nn.Module:
    return sharp(timm.create_model("mobilenetv4_hybrid_medium"), 128, "query.proj", "key.proj")


def mobilevit(t: Any) -> nn.Module:
    sizes = {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 64]}
    config = t.MobileViTConfig(
        image_size=128, num_attention_heads=2, initializer_range=0.3, **sizes
    )
    return sharp(t.MobileViTModel(config), 128, ".query", ".key")


def swin_v2(t: Any) -> nn.Module:
    sizes = {"image_size": 64, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2]}
    return randomized(t.Swinv2Model(t.Swinv2Config(**sizes, window_size=4)))


def swin_2_sr(t: Any) -> nn.Module:
    sizes = {"image_size": 16, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2]}
    return randomized(t.Swin2SRModel(t.Swin2SRConfig(**sizes, window_size=4)))


def cvt(t: Any) -> nn.Module:
    config = t.CvtConfig(embed_dim=[8, 8, 8], num_heads=[1, 2, 2], depth=[1, 2, 3])
    return sharp(t.CvtModel(config), 64, "attention.projection_query", "attention.projection_key")


# Keys of a convolution of 3x3 with padding 1 stand at its middle, which is every second or fourth
# token itself: the first at the first token, not between the tokens of a block.
CASES = {
    "MViTv2": Stages(
        mvit,
        64,
        (
            pooled(16, 4, keys=4),
            same(8, 8),
            Layer((4, 16.0, 0.0), (8, 8.0, 0.0)),
            Layer((2, 32.0, 0.0), (4, 16.0, 0.0)),
        ),
    ),
    "MobileNetV4 hybrid": Stages(
        mobilenet, 128, (*[pooled(8, 16, keys=4)] * 4, *[same(4, 32)] * 4)
    ),
    # windows hold every second token along both axes
    "MobileViT of transformers": Stages(
        mobilevit, 128, (*[same(8, 16, 4)] * 2, *[same(4, 32, 4)] * 4, *[same(2, 64, 4)] * 3)
    ),
    "Swin v2 of transformers": Stages(swin_v2, 64, (*[same(4, 4, 16)] * 2, *[same(4, 8, 4)] * 2)),
    "Swin2SR of transformers": Stages(swin_2_sr, 16, (same(4, 1, 16),) * 4),
    "CvT of transformers": Stages(
        cvt,
        64,
        (
            pooled(16, 4, keys=8),
            *[pooled(8, 8, keys=4)] * 2,
            *[pooled(4, 16, keys=2, prefix=1)] * 3,
        ),
    ),
}


@pytest.fixture(scope="module")
def transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers")


def brute_force(maps: Tensor, layer: Layer) -> np.ndarray:
    """(H,) of probabilities (images * windows, H, queries, keys)."""
    queries, keys = centres(layer.queries[0], *layer.queries), centres(layer.keys[0], *layer.keys)
    return distance(maps, queries, keys, layer.prefix)


@pytest.mark.parametrize("name", CASES)
def test_stages_agree_with_brute_force_at_their_true_places(transformers: Any, name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    module, x = case.build(transformers).eval(), images(2, (case.side, case.side))
    probe = AttentionProbe(module)
    with probe, torch.no_grad():
        probe.begin(2, (case.side, case.side))
        module(x)
    assert probe.unreadable == {}
    maps = softmax_maps(module, x)
    assert len(maps) == len(case.layers)
    for depth, (layer, expected) in enumerate(zip(maps, case.layers, strict=True)):
        rows = [row for row in probe.rows() if row["depth"] == depth]
        assert {(row["grid"], row["windows"]) for row in rows} == {
            (expected.grid, expected.windows)
        }
        distances = [row["distance_px"] for row in rows]
        assert np.isfinite(distances).all()
        np.testing.assert_allclose(distances, brute_force(layer, expected), rtol=2e-5)
        for wrong in (torch.full_like(layer, 1.0), layer.flip(-1)):  # the maps matter
            assert np.abs(brute_force(wrong, expected) / distances - 1).max() > 1e-3
        (count, step, first), between = expected.keys, expected.queries[1]
        if step > between:  # between the tokens of a block, as if they were averaged
            blocks = replace(expected, keys=(count, step, first + (step - between) / 2))
            assert np.abs(brute_force(layer, blocks) / distances - 1).max() > 1e-4


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 2, 1), (3, 4, 1), (3, 1, 1), (2, 2, 0), (4, 4, 0)]
)
def test_the_middle_of_a_convolution_is_where_its_gradient_lies(
    kernel: int, stride: int, padding: int
) -> None:
    """What one pooled key sees, asked of the convolution itself."""
    pool = nn.Conv2d(1, 1, kernel, stride, padding)
    nn.init.ones_(pool.weight)
    tokens = torch.zeros(1, 1, 16, 16, requires_grad=True)
    row = 2  # away from the border
    pool(tokens)[0, 0, row, row].backward()
    seen = tokens.grad[0, 0].nonzero().double().mean(0)
    expected = stride * row - padding + (kernel - 1) / 2
    assert seen.tolist() == [expected, expected]
    if kernel == 3:
        assert expected == stride * row  # at a token, not between two

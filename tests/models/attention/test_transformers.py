"""Models of transformers, which probe does not import: read by what they call, against their own
`output_attentions`.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from probe.models.attention import AttentionProbe
from support.attention_models import brute_force, dropout_maps, images, randomized

SIDE = 96
SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "image_size": SIDE,
}

# configuration, model, options, prefix tokens, (tokens along a side, pixels between them) of each
# layer
MODELS = {
    "vit": ("ViTConfig", "ViTModel", {**SMALL}, 1, ((6, 16.0),) * 2),
    "deit": ("DeiTConfig", "DeiTModel", {**SMALL}, 2, ((6, 16.0),) * 2),
    "dinov2 with registers": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersModel",
        {**SMALL, "patch_size": 16},
        5,
        ((6, 16.0),) * 2,
    ),
    "dinov3 rotary": (
        "DINOv3ViTConfig",
        "DINOv3ViTModel",
        {**SMALL, "hidden_size": 48, "num_register_tokens": 2},
        3,
        ((6, 16.0),) * 2,
    ),
    "clip": ("CLIPVisionConfig", "CLIPVisionModel", {**SMALL}, 1, ((3, 32.0),) * 2),
    "swin": (
        "SwinConfig",
        "SwinModel",
        {
            "image_size": SIDE,
            "window_size": 6,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 2],
        },
        0,
        ((6, 4.0), (6, 4.0), (6, 8.0), (6, 8.0)),
    ),
}


@pytest.fixture(scope="module")
def transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers")


def build(transformers: Any, name: str, attention: str) -> nn.Module:
    config, model, options, _, _ = MODELS[name]
    config = getattr(transformers, config)(**options)
    return randomized(
        getattr(transformers, model)._from_config(config, attn_implementation=attention)
    )


def returned(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Swin returns the attention of the last block of a stage only; that of all blocks is what
    enters their dropout.
    """
    if type(module).__name__ == "SwinModel":
        return dropout_maps(module, x)
    return module(pixel_values=x, output_attentions=True).attentions


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_distances_agree_with_the_attentions_that_the_model_returns(
    transformers: Any, name: str, attention: str
) -> None:
    _, _, _, prefix, squares = MODELS[name]
    x, module = images(2, (SIDE, SIDE)), build(transformers, name, attention)
    with torch.no_grad():
        plain = module(pixel_values=x)[0]
        maps = returned(build(transformers, name, "eager").double(), x.double())
        probe = AttentionProbe(module)
        with probe:
            probe.begin(2, (SIDE, SIDE))
            tapped = module(pixel_values=x)[0]
    assert torch.equal(tapped, plain)
    assert probe.calls == len(maps) == len(squares) > 0
    assert probe.unreadable == {}
    for depth, (layer, (side, stride)) in enumerate(zip(maps, squares, strict=True)):
        rows = [row for row in probe.rows() if row["depth"] == depth]
        expected = brute_force(layer, 2, prefix, side, stride)
        for column in ("distance_px", "distance_px_raw", "prefix_mass", "entropy"):
            np.testing.assert_allclose(
                [row[column] for row in rows], expected[column], rtol=1e-5, atol=1e-6
            )

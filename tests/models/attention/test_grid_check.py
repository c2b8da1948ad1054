"""One patch of the image is changed: the token that changes is the one of that place."""

from __future__ import annotations

import warnings
from unittest import mock

import pytest
import timm
import torch
from torch import nn

import probe
from probe.errors import ProbeError
from probe.models.attention import layouts
from support.attention_models import CASES, randomized, small_vit


@pytest.mark.parametrize(
    "name", ["vit", "deit distilled", "registers", "eva rotary", "beit", "torchvision vit"]
)
def test_every_layer_changes_first_where_the_image_was_changed(name: str) -> None:
    torch.manual_seed(0)
    table = probe.check_attention_grid(CASES[name].build(), image_size=224)
    assert table["patches"].tolist() == [9, 9]
    assert table["agrees"].all()
    assert table["grid"].iloc[0] in ("14x14", "16x16")


def test_a_pyramid_agrees_at_every_stage() -> None:
    module = timm.create_model(
        "pvt_v2_b0", depths=(1, 1, 1, 1), embed_dims=(8, 8, 8, 8), num_heads=(1, 1, 1, 1)
    ).eval()
    table = probe.check_attention_grid(module, image_size=64)
    assert table["grid"].tolist() == ["16x16", "8x8", "4x4", "2x2"]
    assert table["agrees"].all()


TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "image_size": 96,
    "patch_size": 16,
}
TRANSFORMERS = {
    "ViT": {},
    "DeiT": {},
    "Beit": {},
    "Dinov2": {},
    "CLIPVision": {},
    "SiglipVision": {},
    "Yolos": {"image_size": [96, 96], "num_detection_tokens": 13},
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_families_of_transformers_agree(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(**{**TINY, **TRANSFORMERS[name]})
    module = randomized(getattr(transformers, f"{name}Model")(config))
    table = probe.check_attention_grid(module, image_size=96)
    assert table["grid"].tolist() == ["6x6"]
    assert table["agrees"].all()
    assert table["largest_offset"].max() <= 0.5


class Sideways(nn.Module):
    """Columns are read as rows."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.attn = nn.Conv2d(3, 8, 16, 16), nn.MultiheadAttention(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).transpose(2, 3).flatten(2).permute(2, 0, 1)
        return self.attn(x, x, x, need_weights=False)[0]


def test_a_wrong_order_is_found_by_behaviour_alone() -> None:
    with mock.patch.object(layouts.TokenLayout, "check_order", return_value=None):
        table = probe.check_attention_grid(Sideways().eval(), image_size=128)
    assert not table["agrees"].any()
    assert table["largest_offset"].max() > 3


def test_without_a_layer_to_try_it_says_so() -> None:
    with pytest.raises(ProbeError, match="no attention layer"):
        probe.check_attention_grid(Sideways().eval(), image_size=128)


def test_the_size_of_the_image_is_that_of_the_patch_embedding() -> None:
    assert probe.check_attention_grid(small_vit())["grid"].tolist() == ["4x4"]

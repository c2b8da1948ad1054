"""Folding whole networks, with the norms that they have and with those of the zoo."""

from __future__ import annotations

import warnings

import pytest
import timm.layers as tl
import torch
import torchvision
from timm.models import ResNet, SwinTransformer
from timm.models.resnet import Bottleneck
from torch import nn

from probe.models.folding.fold import fold
from probe.models.reading.layers import norm_modules
from probe.models.replacing.swap import swap
from probe.norms.registry import create_norm
from support.fold_cases import change, convnext, folded, inputs, kept, same, state, trained, vit


def resnet(blocks=(1, 1, 1, 1)):
    """ResNet with few channels; (3, 4, 6, 3) blocks have the 53 norms of ResNet-50."""
    return ResNet(Bottleneck, blocks, num_classes=5, channels=(8, 12, 16, 20))


def swin():
    return SwinTransformer(
        img_size=32,
        patch_size=2,
        window_size=4,
        embed_dim=8,
        depths=(2, 1),
        num_heads=(1, 2),
        num_classes=5,
    )


def torchvision_vit():
    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 24, 48, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # zero at the start
    return model


def torchvision_resnet():
    block = torchvision.models.resnet.BasicBlock
    return torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=5)


def transformers_vit():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import ViTConfig, ViTForImageClassification

        sizes = {
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
        }
        return ViTForImageClassification(
            ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=5)
        )


class Encoder(nn.Module):
    """torch's own encoder, with its norms before attention."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 2, 48, batch_first=True, norm_first=True)
        self.stem = nn.Conv2d(3, 24, 8, stride=8)
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(24), enable_nested_tensor=False)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        return self.head(self.layers(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


# what is built, how many maps move, which layers stay
NETWORKS = {
    "resnet50": (lambda: resnet((3, 4, 6, 3)), 53, {}),
    "vit": (lambda: vit(qkv_bias=False), 5, {}),
    "vit, mean of tokens": (
        lambda: vit(global_pool="avg", class_token=False, fc_norm=False),
        5,
        {},
    ),
    "vit, norm after the mean": (lambda: vit(global_pool="avg"), 5, {}),
    "swin": (swin, 8, {"patch_embed.norm": "layer_norm (layers.0.blocks.0.norm1) is in the way"}),
    "convnext": (
        convnext,
        8,
        {"stem.1": "add (stages.0.blocks.0) reads it together with another tensor"},
    ),
    "convnext, convolutions only": (
        lambda: convnext(conv_mlp=True),
        8,
        {"stem.1": "add (stages.0.blocks.0) reads it together"},
    ),
    "torchvision resnet": (torchvision_resnet, 20 - 8, {}),
    "torchvision vit": (torchvision_vit, 5, {}),
    "transformers vit": (transformers_vit, 5, {}),
    "torch encoder": (Encoder, 5, {}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_computes_the_same_after_the_fold_and_has_its_bits_back_after_undo(name):
    build, moves, stays = NETWORKS[name]
    module = trained(build())
    original = state(module)
    result, relative = change(module, inputs(2, 3, 32, 32))
    assert relative < 1e-5
    assert result.relative == pytest.approx(relative, rel=0.5, abs=1e-7)
    assert len(folded(result)) == moves
    assert {layer: reason[: len(stays[layer])] for layer, reason in kept(result).items()} == stays
    result.undo()
    assert same(state(module), original)


@pytest.mark.parametrize("build", [resnet, vit, convnext])
def test_in_float64_nothing_is_lost_but_rounding(build):
    module = trained(build()).double()
    _, relative = change(module, inputs(2, 3, 32, 32, dtype=torch.float64))
    assert relative < 1e-12


def test_a_batch_norm_is_gone_and_a_layer_norm_keeps_no_affine():
    cnn, transformer = trained(resnet()), trained(vit(depth=1))
    fold(cnn, inputs(1, 3, 32, 32))
    fold(transformer, inputs(1, 3, 32, 32))
    assert list(norm_modules(cnn)) == []
    assert isinstance(cnn.layer1[0].bn1, nn.Identity)
    assert all(
        bool((norm.weight == 1).all()) and not norm.bias.any()
        for _, norm, _ in norm_modules(transformer)
    )


ZOO = ["unified_norm", "learnable_scaler", "rep_batch_norm", "batch_norm"]


@pytest.mark.parametrize("norm", ZOO)
def test_a_vit_with_norms_that_are_affine_at_evaluation_has_none_left(norm):
    module = vit(qkv_bias=False, depth=1).eval()
    swap(module, norm)
    trained(module)
    result, relative = change(module, inputs(2, 3, 32, 32))
    assert relative < 1e-5
    assert len(folded(result)) == 3
    assert list(norm_modules(module)) == []


def test_a_convnet_with_dyt_gives_its_alphas_to_the_convolutions():
    module = torchvision_resnet().eval()
    swap(module, "dyt")
    trained(module)
    result, relative = change(module, inputs(2, 3, 32, 32))
    assert relative < 1e-5
    moved = {row.layer: row.into for row in result.outcomes if row.status == "folded"}
    assert moved["bn1"] == "conv1"
    assert len(moved) == 12
    assert {row.direction for row in result.outcomes if row.status == "folded"} == {"alpha"}
    assert module.bn1.alpha.item() == 1.0
    assert {
        row.reason for row in result.outcomes if row.layer == "bn1" and row.status == "kept"
    } == {"relu (relu) is in the way"}


def test_a_derf_gives_away_its_shift_as_well():
    net = trained(nn.Sequential(nn.Linear(6, 6), create_norm("derf", 6), nn.Linear(6, 5)))
    result, relative = change(net, inputs(3, 4, 6))
    assert relative < 1e-5
    assert [(row.direction, row.into, row.status) for row in result.outcomes] == [
        ("alpha", "0", "folded"),
        ("affine", "2", "folded"),
    ]
    assert (net[1].alpha.item(), net[1].shift.item()) == (1.0, 0.0)


def test_maps_move_past_each_other():
    """Two norms into the linear before them; a LayerNorm and, past it, one more norm into the
    linear after them.
    """
    norms = (nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.LayerNorm(6), nn.BatchNorm1d(6))
    net = trained(nn.Sequential(nn.Linear(6, 6, bias=False), *norms, nn.Linear(6, 5, bias=False)))
    result, relative = change(net.double(), inputs(7, 6, dtype=torch.float64))
    assert relative < 1e-12
    assert folded(result) == {
        "1": ("before", "0"),
        "2": ("before", "0"),
        "3": ("affine", "5"),
        "4": ("after", "5"),
    }


def test_a_norm_and_activation_module_keeps_its_activation_and_drop():
    net = trained(nn.Sequential(nn.Conv2d(3, 4, 1), tl.BatchNormAct2d(4, act_layer=nn.GELU)))
    _, relative = change(net, inputs(2, 3, 5, 5))
    assert relative < 1e-5
    assert [type(child) for child in net[1]] == [nn.Identity, nn.GELU]

"""The bundled networks are timm's to the bit, and need neither timm nor torchvision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from probe.models.loading import bundled
from probe.models.loading.weights import fingerprint, seeded


def timms_vit() -> nn.Module:
    from timm.models import VisionTransformer

    model = VisionTransformer(
        img_size=32, patch_size=4, embed_dim=128, depth=8, num_heads=4, num_classes=10
    )
    layers: list[nn.Module] = []
    for before, after in ((3, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        layers.append(nn.MaxPool2d(3, 2, padding=1))
    model.patch_embed.proj = nn.Sequential(*layers)
    return model


def timms_resnet() -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet

    block: Any = BasicBlock
    model: Any = ResNet(
        block,
        (1, 1, 1, 1),
        channels=(32, 64, 128, 256),
        num_classes=10,
        stem_type="deep",
        stem_width=16,
    )
    model.conv1 = nn.Conv2d(3, 32, kernel_size=3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


TIMMS = {"vit_cifar10": timms_vit, "resnet_cifar10": timms_resnet}


@pytest.fixture(scope="module", params=TIMMS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """The bundled network and timm's, of one seed."""
    networks = []
    for make in (bundled.ARCHITECTURES[request.param], TIMMS[request.param]):
        with seeded(3):
            networks.append(make())
    return networks[0], networks[1]


def test_a_seed_gives_the_weights_that_timm_gives(pair: tuple[nn.Module, nn.Module]) -> None:
    own, timms = pair
    assert list(own.state_dict()) == list(timms.state_dict())
    assert fingerprint(own) == fingerprint(timms)


@pytest.mark.parametrize("training", [False, True])
def test_logits_and_gradients_are_those_of_timm(
    pair: tuple[nn.Module, nn.Module], training: bool
) -> None:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    results = []
    for module in map(copy.deepcopy, pair):
        logits = module.train(training)(images)
        logits.square().sum().backward()
        gradients = {name: each.grad for name, each in module.named_parameters()}
        results.append((logits, gradients, module.state_dict()))
    (own, own_gradients, own_state), (timms, gradients, state) = results
    assert torch.equal(own, timms)
    assert all(torch.equal(own_gradients[name], gradients[name]) for name in gradients)
    assert all(torch.equal(own_state[name], state[name]) for name in state)


def test_attention_without_the_fused_function_is_that_of_timm() -> None:
    results = []
    for make in (bundled.vit_cifar10, timms_vit):
        with seeded(0):
            module: Any = make().eval()
            images = torch.rand(2, 3, 32, 32)
        for block in module.blocks:
            block.attn.fused_attn = False
        results.append(module(images))
    assert torch.equal(*results)


@pytest.mark.parametrize("size", [(50, 40), (40, 51), (32, 32), (32, 64), (64, 64), (20, 31)])
def test_the_transform_is_that_of_torchvision(size: tuple[int, int]) -> None:
    from timm.data.transforms_factory import create_transform

    timms = create_transform(
        bundled.INPUT_SIZE,
        is_training=False,
        interpolation="bicubic",
        crop_pct=1.0,
        mean=bundled.MEAN,
        std=bundled.STD,
    )
    photograph = Image.merge("RGB", [Image.effect_noise(size, 80) for _ in range(3)])
    own = bundled.transform()
    assert torch.equal(own(photograph), timms(photograph))
    assert str(own) == str(timms)

"""The small networks that ship inside the package, so that the main job runs with no network.

Both were trained on CIFAR-10 (32 x 32 images, 10 classes) by `python -m probe.training.bundled`;
the model cards beside the weights give the command, the data, the epochs and the accuracy. They are
stand-ins for trying the tool, not research models.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probe.models.loading.bundled.resnet import ResNet
from probe.models.loading.bundled.transform import EvaluationTransform
from probe.models.loading.bundled.vit import VisionTransformer

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
INPUT_SIZE = (3, 32, 32)


def vit_cifar10() -> nn.Module:
    """ViT, 8 blocks, 128 channels, 4 heads, on 32 x 32 images: 8 x 8 tokens and a class token.

    The tokens come from two convolutions, each with ReLU and pooling, in place of 4-pixel patches:
    a small data set is learned in far fewer epochs ("Escaping the Big Data Paradigm with Compact
    Transformers", https://arxiv.org/abs/2104.05704).
    """
    model = VisionTransformer(
        img_size=32, patch_size=4, embed_dim=128, depth=8, num_heads=4, num_classes=10
    )
    model.patch_embed.proj = nn.Sequential(*_convolution(3, 64), *_convolution(64, 128))
    return model


def _convolution(before: int, after: int) -> list[nn.Module]:
    """Half the height and width."""
    return [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]


def resnet_cifar10() -> nn.Module:
    """ResNet with BatchNorm: 4 stages of one basic block, 32 to 256 channels, CIFAR stem (3 x 3,
    stride 1, no pooling).
    """
    # its three strided convolutions make way for one, which is drawn last
    model = ResNet(channels=(32, 64, 128, 256), stem_width=16, num_classes=10)
    model.conv1 = nn.Conv2d(3, 32, kernel_size=3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "vit_cifar10": vit_cifar10,
    "resnet_cifar10": resnet_cifar10,
}


def weights_path(name: str) -> Path:
    """The weights file of a network of ARCHITECTURES, beside this module."""
    return Path(__file__).parent / f"{name}.safetensors"


def transform() -> Callable[[Any], Tensor]:
    """Evaluation transform of both networks: short side to 32 pixels, centre crop, the
    normalization of their training.
    """
    return EvaluationTransform(INPUT_SIZE[-1], torch.tensor(MEAN), torch.tensor(STD))

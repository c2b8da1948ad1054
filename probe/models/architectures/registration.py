"""Networks of this package in timm's registry, so that they have names, options and settings like
any other: `timm.create_model("vit_norm_s", norm="dyt", img_size=64)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, register_model
from timm.models import generate_default_cfgs as with_tags
from torch import nn

default_cfgs: dict[str, Any] = {}  # timm looks for this name beside an entry point
__all__ = ["OWN_MODELS", "register", "takes_norm"]  # timm adds every entry point to it

OWN_MODELS: dict[str, Callable[..., nn.Module]] = {}

IMAGENET = {
    "url": "",
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "crop_pct": 0.9,
    "interpolation": "bicubic",
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "first_conv": "patch_embed.proj",
    "classifier": "head",
}


def register(name: str, make: Callable[..., nn.Module], **settings: Any) -> None:
    """Let timm build `name` by `make(**options)`, with these settings of its own beside those of
    ImageNet.
    """

    def entry_point(pretrained: bool = False, **options: Any) -> nn.Module:
        module: nn.Module = build_model_with_cfg(make, name, pretrained, **options)
        return module

    entry_point.__name__ = name
    default_cfgs.update(with_tags({name: IMAGENET | settings}))
    OWN_MODELS[name] = register_model(entry_point)


def takes_norm(name: str) -> bool:
    """Does the network build its layers with a norm of the zoo (options `norm`, `norm_options`)?

    For these a norm is chosen by the constructor, which knows the grids and heads of its layers and
    which of them the source replaces; for all other networks by `replace_norms`.
    """
    return name.removeprefix("timm:") in OWN_MODELS

"""Small models with the real token grids, and attention distance by brute force: explicit softmax,
float64, full maps in numpy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from probe.models.attention import AttentionProbe

SIZE = (224, 224)


def randomized(module: nn.Module, seed: int = 0) -> nn.Module:
    """In evaluation mode, with weights large enough that heads differ from uniform attention."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=rng) * (0.3 if parameter.ndim > 1 else 0.2)
            )
        for child in module.modules():
            if isinstance(child, nn.LayerNorm):
                child.weight += 1
    return module.eval()


def images(count: int, size: tuple[int, int] = SIZE, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def _timm(name: str, **options: object) -> nn.Module:
    return randomized(timm.create_model(name, **options))


def timm_maps(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Probabilities of timm's unfused path, as they enter the attention dropout."""
    seen: list[Tensor] = []
    for child in module.modules():
        if hasattr(child, "fused_attn"):
            child.fused_attn = False
        if isinstance(drop := getattr(child, "attn_drop", None), nn.Module):
            drop.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    module(x)
    return seen


def mha_maps(module: nn.Module, x: Tensor) -> list[Tensor]:
    """nn.MultiheadAttention asked for its weights, head by head, with the input that it was
    given.
    """
    seen: list[Tensor] = []

    def hook(layer: nn.MultiheadAttention, args: tuple) -> None:
        again = copy.deepcopy(layer)
        again._forward_pre_hooks.clear()
        seen.append(again(*args[:3], need_weights=True, average_attn_weights=False)[1])

    for child in module.modules():
        if isinstance(child, nn.MultiheadAttention):
            child.register_forward_pre_hook(hook)
    module(x)
    return seen


def dropout_maps(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Square probabilities that a model hands to the functional dropout."""
    seen: list[Tensor] = []
    dropout = F.dropout

    def spy(value: Tensor, *args: object, **kwargs: object) -> Tensor:
        if value.ndim == 4 and value.shape[-1] == value.shape[-2]:
            seen.append(value)
        return dropout(value, *args, **kwargs)

    F.dropout = spy
    try:
        module(x)
    finally:
        F.dropout = dropout
    return seen


@dataclass(frozen=True)
class Case:
    """A model, how to get its maps, and its geometry written down by hand: layer -> (tokens along a
    side, pixels between them).
    """

    build: Callable[[], nn.Module]
    maps: Callable[[nn.Module, Tensor], list[Tensor]]
    prefix: int
    squares: tuple[tuple[int, float], ...]


VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3}
SWIN = {"embed_dim": 24, "depths": (2, 2, 2, 1), "num_heads": (2, 2, 2, 2)}
STAGES = ((7, 4.0), (7, 4.0), (7, 8.0), (7, 8.0), (7, 16.0), (7, 16.0), (7, 32.0))

CASES = {
    "vit": Case(partial(_timm, "vit_tiny_patch16_224", **VIT), timm_maps, 1, ((14, 16.0),) * 2),
    "vit without class token": Case(
        partial(_timm, "vit_tiny_patch16_224", **VIT, class_token=False, global_pool="avg"),
        timm_maps,
        0,
        ((14, 16.0),) * 2,
    ),
    "vit with q/k norm": Case(
        partial(_timm, "vit_tiny_patch16_224", **VIT, qk_norm=True), timm_maps, 1, ((14, 16.0),) * 2
    ),
    "deit distilled": Case(
        partial(_timm, "deit_tiny_distilled_patch16_224", **VIT), timm_maps, 2, ((14, 16.0),) * 2
    ),
    "registers": Case(
        partial(_timm, "vit_small_patch14_reg4_dinov2", **VIT, img_size=224),
        timm_maps,
        5,
        ((16, 14.0),) * 2,
    ),
    "eva rotary": Case(
        partial(_timm, "eva02_tiny_patch14_224", **VIT), timm_maps, 1, ((16, 14.0),) * 2
    ),
    "beit": Case(partial(_timm, "beit_base_patch16_224", **VIT), timm_maps, 1, ((14, 16.0),) * 2),
    "swin": Case(partial(_timm, "swin_tiny_patch4_window7_224", **SWIN), timm_maps, 0, STAGES),
    "swin v2": Case(
        partial(_timm, "swinv2_tiny_window8_256", **SWIN, img_size=224, window_size=7),
        timm_maps,
        0,
        STAGES,
    ),
    "torchvision vit": Case(
        lambda: randomized(torchvision.models.VisionTransformer(224, 16, 2, 3, 48, 96)),
        mha_maps,
        1,
        ((14, 16.0),) * 2,
    ),
    "torchvision swin": Case(
        lambda: randomized(
            torchvision.models.SwinTransformer(
                [4, 4], 24, [2, 2, 2, 1], [2, 2, 2, 2], [7, 7], stochastic_depth_prob=0.0
            )
        ),
        dropout_maps,
        0,
        STAGES,
    ),
}


def square_distances(side: int, stride: float) -> np.ndarray:
    """Distances in pixels between the tokens of a square, row-major, by two loops over
    positions.
    """
    places = [(row * stride, column * stride) for row in range(side) for column in range(side)]
    return np.array([[np.hypot(a - c, b - d) for c, d in places] for a, b in places])


def brute_force(
    maps: Tensor, batch: int, prefix: int, side: int, stride: float
) -> dict[str, np.ndarray]:
    """The columns of one layer from its probabilities (B * windows, H, N, N), each (H,)."""
    a = maps.detach().numpy().astype(np.float64)
    a = a.reshape(batch, -1, *a.shape[1:])
    distances = square_distances(side, stride)
    patch = a[..., prefix:, prefix:]
    mass = patch.sum(-1)
    raw = (patch * distances).sum(-1)
    per_image = (raw / mass).mean((1, 3))  # (B, H)
    logs = np.log(np.where(a > 0, a, 1))
    return {
        "distance_px": per_image.mean(0),
        "distance_px_raw": raw.mean((0, 1, 3)),
        "distance_px_std": per_image.std(0),
        "prefix_mass": 1 - mass.mean((0, 1, 3)),
        "entropy": -(a * logs).sum(-1)[..., prefix:].mean((0, 1, 3)),
    }


def small_vit(**options: object) -> nn.Module:
    """16 patches of 64 x 64 pixels and a class token, one block."""
    defaults = {"embed_dim": 24, "depth": 1, "num_heads": 2, "img_size": 64}
    return randomized(timm.create_model("vit_tiny_patch16_224", **{**defaults, **options}))


def read(
    module: nn.Module, size: tuple[int, int] = (64, 64), count: int = 2, **options: object
) -> AttentionProbe:
    """A probe after one forward pass."""
    probe = AttentionProbe(module, **options)
    with probe, torch.no_grad():
        probe.begin(count, size)
        module(images(count, size))
    return probe

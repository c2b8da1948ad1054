"""Pyramid vision transformers, version 1, with the norm of their first three stages chosen by name.

Wang et al. 2021, https://arxiv.org/abs/2102.12122, as Dynamic Token Normalization trains them
(https://arxiv.org/abs/2112.02624): 4, 4, 5 and 8 heads where the originals have 1, 2, 5 and 8. The
class token joins in the last stage, which keeps LayerNorm, as do the last norm, the embeddings of
patches and the reduced keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from timm.layers import DropPath, Mlp, calculate_drop_path_rates, trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from probe.errors import UsageError
from probe.models.architectures.norm_choice import NormChoice, NormLayer, norm_layer
from probe.models.architectures.registration import register

CHANNELS = (64, 128, 320, 512)
HEADS = (4, 4, 5, 8)
MLP_RATIOS = (8, 8, 4, 4)
REDUCTIONS = (8, 4, 2, 1)  # of keys and values, a side
DEPTHS = {
    "pvt_norm_tiny": (2, 2, 2, 2),
    "pvt_norm_small": (3, 4, 6, 3),
    "pvt_norm_medium": (3, 4, 18, 3),
    "pvt_norm_large": (3, 8, 27, 3),
}


class ReducedAttention(nn.Module):
    """Attention whose keys and values come from a coarser grid: a convolution of `reduction`
    pixels a side, without overlap.
    """

    def __init__(self, channels: int, num_heads: int, reduction: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.kv = nn.Linear(channels, channels), nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.sr: nn.Module | None = None
        if reduction > 1:
            self.sr = nn.Conv2d(channels, channels, reduction, stride=reduction)
            self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, T, C) to the same; grid: rows and columns of the tokens where keys are reduced."""
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        keys = x
        if self.sr is not None:
            image = x.transpose(1, 2).unflatten(2, grid)
            keys = self.norm(self.sr(image).flatten(2).transpose(1, 2))
        k, v = self.kv(keys).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return out


class ReducedBlock(nn.Module):
    """Pre-norm block with `ReducedAttention`."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        mlp_ratio: int,
        reduction: int,
        drop_path: float,
        norm: NormLayer,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(channels), norm(channels)
        self.attn = ReducedAttention(channels, num_heads, reduction)
        self.mlp = Mlp(channels, channels * mlp_ratio)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), grid))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchStage(nn.Module):
    """Patches of an image to tokens: convolution without overlap, LayerNorm."""

    def __init__(self, in_channels: int, channels: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(channels)

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, T, C), and the rows and columns of its grid."""
        image = self.proj(image)
        return self.norm(image.flatten(2).transpose(1, 2)), (image.shape[2], image.shape[3])


class PyramidViT(nn.Module):
    """Four stages of tokens, each of a quarter of the tokens of the one before."""

    def __init__(
        self,
        *,
        depths: tuple[int, int, int, int] = (2, 2, 2, 2),
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        norm: NormChoice = "layer_norm",
        norm_options: Mapping[str, Any] | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        rows, columns = (img_size, img_size) if isinstance(img_size, int) else img_size
        if rows % 32 or columns % 32:
            raise UsageError(f"img_size={rows}x{columns} given; multiples of 32 pixels are needed")
        self.img_size = (rows, columns)
        self.num_classes, self.num_features, self.in_chans = num_classes, CHANNELS[-1], in_chans
        self.head_hidden_size, self.num_prefix_tokens = CHANNELS[-1], 1
        self.drop = nn.Dropout(drop_rate)
        rates: Any = iter(calculate_drop_path_rates(drop_path_rate, sum(depths)))
        self.patch_embeds, self.stages = nn.ModuleList(), nn.ModuleList()
        self.pos_embeds = nn.ParameterList()
        for i, channels in enumerate(CHANNELS):
            last, stride = i == len(CHANNELS) - 1, 4 * 2**i
            grid = (rows // stride, columns // stride)
            before = in_chans if i == 0 else CHANNELS[i - 1]
            make = norm_layer(
                "layer_norm" if last else norm,
                None if last else norm_options,
                eps=1e-6,
                num_heads=HEADS[i],
                grid=grid,
                prefix_tokens=int(last),
            )
            self.patch_embeds.append(PatchStage(before, channels, 4 if i == 0 else 2))
            self.pos_embeds.append(torch.zeros(1, grid[0] * grid[1] + last, channels))
            self.stages.append(
                nn.ModuleList(
                    ReducedBlock(channels, HEADS[i], MLP_RATIOS[i], REDUCTIONS[i], rate, make)
                    for rate in [next(rates) for _ in range(depths[i])]
                )
            )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, CHANNELS[-1]))
        self.norm = norm_layer("layer_norm", eps=1e-6)(CHANNELS[-1])
        self.head = nn.Linear(CHANNELS[-1], num_classes) if num_classes else nn.Identity()
        self._initialize()

    def _initialize(self) -> None:
        for parameter in (self.cls_token, *self.pos_embeds):
            trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def no_weight_decay(self) -> set[str]:
        """For timm's optimizers."""
        return {"cls_token", *(f"pos_embeds.{i}" for i in range(len(self.pos_embeds)))}

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head for so many classes; the class token is all that it reads."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 1 + T, 512) after the last norm."""
        stages: Any = zip(self.patch_embeds, self.stages, strict=True)
        for i, (embed, blocks) in enumerate(stages):
            x, grid = embed(x)
            if i == len(self.stages) - 1:
                x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
            x = self.drop(x + self.pos_embeds[i])
            for block in blocks:
                x = block(x, grid)
            if i < len(self.stages) - 1:
                x = x.transpose(1, 2).unflatten(2, grid)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x[:, 0] if pre_logits else self.head(x[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, classes)."""
        return self.forward_head(self.forward_features(x))


for _name, _depths in DEPTHS.items():
    register(
        _name,
        partial(PyramidViT, depths=_depths, norm="dtn"),
        fixed_input_size=True,
        first_conv="patch_embeds.0.proj",
    )

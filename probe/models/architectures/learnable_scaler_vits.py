"""Thin and deep vision transformers of the LearnableScaler project
(https://github.com/nghiemtuan/LearnableScaler): timm's ViT with every norm chosen by name.

`vit_learnable_scaler_embed_dim192_patch16_head3_depth36` and so on have scalers in place of all
norms, the last one included; without `learnable_scaler_` in the name LayerNorm, its baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import product
from typing import Any

from timm.models import VisionTransformer

from probe.models.architectures.norm_choice import NormChoice, norm_layer
from probe.models.architectures.registration import register

SIZES = list(product((120, 192, 288, 384), (16, 32), (3, 6), (12, 24, 36)))


class ScalerViT(VisionTransformer):
    """timm's ViT; norm and norm_options choose every norm layer."""

    def __init__(
        self,
        *,
        norm: NormChoice = "layer_norm",
        norm_options: Mapping[str, Any] | None = None,
        num_heads: int,
        patch_size: int,
        img_size: int | tuple[int, int] = 224,
        **options: Any,
    ) -> None:
        rows, columns = (img_size, img_size) if isinstance(img_size, int) else img_size
        grid = (rows // patch_size, columns // patch_size)
        known = {"eps": 1e-6, "num_heads": num_heads, "grid": grid, "prefix_tokens": 1}
        super().__init__(
            norm_layer=norm_layer(norm, norm_options, **known),
            num_heads=num_heads,
            patch_size=patch_size,
            img_size=img_size,
            **options,
        )


for _channels, _patch, _heads, _depth in SIZES:
    for _norm, _prefix in (("learnable_scaler", "vit_learnable_scaler"), ("layer_norm", "vit")):
        register(
            f"{_prefix}_embed_dim{_channels}_patch{_patch}_head{_heads}_depth{_depth}",
            partial(
                ScalerViT,
                embed_dim=_channels,
                patch_size=_patch,
                num_heads=_heads,
                depth=_depth,
                norm=_norm,
            ),
            fixed_input_size=True,
        )

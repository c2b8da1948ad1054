"""Vision transformers whose norms are chosen by name, and whose class token may join late.

Tokens x are (B, T, C); the class token stands first. Blocks are timm's: pre-norm, GELU, no bias of
queries, keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from timm.layers import PatchEmbed, calculate_drop_path_rates, trunc_normal_
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from probe.errors import UsageError
from probe.models.architectures.norm_choice import NormChoice, norm_layer


class NormViT(nn.Module):
    """ViT of which the class token joins before block `class_token_from`.

    At 0 it is there from the start: all blocks have the chosen norm, and the position embedding
    has a place for it. Later, as in Dynamic Token Normalization: only the blocks before it have the
    chosen norm, those after it LayerNorm, and the class token has no position. `head_norm` is the
    last one: on the class token alone where it is there from the start, else on all tokens.

    embed_layer: makes tokens of images; has `grid_size` (rows, columns) and `num_patches`.
    init: `trunc_normal`, timm's; `torch`, that of each layer, and N(0, 1) for the class token
    and the positions. No normalizer is initialized anew by either.
    """

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        norm: NormChoice = "layer_norm",
        norm_options: Mapping[str, Any] | None = None,
        head_norm: NormChoice = "layer_norm",
        class_token_from: int = 0,
        embed_layer: Callable[..., Any] = PatchEmbed,
        init: str = "trunc_normal",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= class_token_from < depth:
            raise UsageError(
                f"class_token_from={class_token_from} given; a block from 0 to {depth - 1} is "
                "needed, else nothing ever reads the class token"
            )
        self.num_classes, self.num_features, self.embed_dim = num_classes, embed_dim, embed_dim
        self.head_hidden_size, self.in_chans = embed_dim, in_chans
        self.class_token_from, self.num_prefix_tokens = class_token_from, 1
        self.patch_embed = embed_layer(
            img_size=img_size, patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        places = self.patch_embed.num_patches + (class_token_from == 0)
        self.pos_embed = nn.Parameter(torch.zeros(1, places, embed_dim))
        self.pos_drop = nn.Dropout(drop_rate)
        rates: Any = calculate_drop_path_rates(drop_path_rate, depth)
        self.blocks = nn.Sequential(
            *(
                Block(
                    embed_dim,
                    num_heads,
                    mlp_ratio,
                    proj_drop=drop_rate,
                    drop_path=rates[i],
                    norm_layer=self._norm_of(i, norm, norm_options, num_heads),
                )
                for i in range(depth)
            )
        )
        self.norm = norm_layer(head_norm, eps=1e-5, num_heads=num_heads)(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes) if num_classes else nn.Identity()
        self._initialize(init)

    def _norm_of(
        self, block: int, norm: NormChoice, options: Mapping[str, Any] | None, num_heads: int
    ) -> Any:
        prefix = int(block >= self.class_token_from)
        if prefix and self.class_token_from:
            return norm_layer("layer_norm", eps=1e-5, prefix_tokens=prefix)
        grid = tuple(self.patch_embed.grid_size)
        known = {"eps": 1e-5, "num_heads": num_heads, "grid": grid, "prefix_tokens": prefix}
        return norm_layer(norm, options, **known)

    def _initialize(self, init: str) -> None:
        if init == "torch":
            for parameter in (self.cls_token, self.pos_embed):
                nn.init.normal_(parameter)
            return
        for parameter in (self.cls_token, self.pos_embed):
            trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def no_weight_decay(self) -> set[str]:
        """For timm's optimizers."""
        return {"pos_embed", "cls_token"}

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head for so many classes; the class token is all that it reads."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.embed_dim, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 1 + T, C), or the class token (B, C) where it is there from the start; normalized."""
        x = self.patch_embed(x)
        if self.class_token_from == 0:
            x = self._with_class_token(x)
        x = self.pos_drop(x + self.pos_embed)
        for i, block in enumerate(self.blocks):
            if i == self.class_token_from > 0:
                x = self._with_class_token(x)
            x = block(x)
        return self.norm(x if self.class_token_from else x[:, 0])

    def _with_class_token(self, x: Tensor) -> Tensor:
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        token = x[:, 0] if self.class_token_from else x
        return token if pre_logits else self.head(token)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, classes)."""
        return self.forward_head(self.forward_features(x))

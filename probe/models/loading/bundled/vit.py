"""The plain vision transformer, with the names, the initialization and the operations of timm's
(https://github.com/huggingface/pytorch-image-models), of which it is the same network to the bit.

It stands here because importing timm, and torchvision with it, takes as long as importing torch.
Tokens x are (B, T, C); the class token stands first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def truncated_normal(tensor: Tensor, std: float) -> None:
    """N(0, std^2) within -2 and 2, by the inverse of its distribution function as in timm; torch's
    own draws other numbers.
    """
    with torch.no_grad():
        tensor.uniform_(-1, 1).erfinv_().mul_(std * math.sqrt(2)).clamp_(-2, 2)


class PatchEmbed(nn.Module):
    """Images (B, 3, size, size) to one token for each patch, row by row."""

    def __init__(self, img_size: int, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        side = img_size // patch_size
        self.img_size, self.patch_size = (img_size, img_size), (patch_size, patch_size)
        self.grid_size, self.num_patches = (side, side), side * side
        self.proj: nn.Module = nn.Conv2d(3, embed_dim, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


class Attention(nn.Module):
    """Softmax attention of all tokens to all. fused_attn: by one function of torch, else by two
    products of matrices.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.scale = self.head_dim**-0.5
        self.fused_attn = True
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused_attn:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q * self.scale @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, channels))
        return out


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Block(nn.Module):
    """Pre-norm: attention, then the feed-forward layer, each added to its input."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Class token, learned positions, pre-norm blocks, a last norm, a linear head on the class
    token.
    """

    def __init__(
        self,
        *,
        img_size: int,
        patch_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.num_classes, self.embed_dim, self.num_features = num_classes, embed_dim, embed_dim
        self.num_prefix_tokens = 1
        self.patch_embed = PatchEmbed(img_size, patch_size, embed_dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, self.patch_embed.num_patches + 1, embed_dim))
        self.blocks = nn.Sequential(*(Block(embed_dim, num_heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)
        self._initialize()

    def _initialize(self) -> None:
        truncated_normal(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                truncated_normal(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def no_weight_decay(self) -> set[str]:
        """The parameters that training leaves without weight decay."""
        return {"pos_embed", "cls_token"}

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, num_classes)."""
        patches = self.patch_embed(x)
        tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), patches], dim=1)
        tokens = self.norm(self.blocks(tokens + self.pos_embed))
        logits: Tensor = self.head(tokens[:, 0])
        return logits

"""Tokens of overlapping patches, mixed by two performers on the way: the T2T module.

Yuan et al. 2021, Tokens-to-Token ViT, https://arxiv.org/abs/2101.11986; performers of Choromanski
et al. 2020, https://arxiv.org/abs/2009.14794. 224 pixels give a grid of 14 x 14, one token for 16.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from probe.errors import UsageError

CHANNELS = 64  # of the tokens between the two performers


class TokensToToken(nn.Module):
    """Images (B, 3, H, W) to tokens (B, H/16 * W/16, embed_dim).

    unfold 7x7 by 4 -> performer -> unfold 3x3 by 2 -> performer -> unfold 3x3 by 2 -> linear.
    """

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 384,
    ) -> None:
        super().__init__()
        rows, columns = (img_size, img_size) if isinstance(img_size, int) else img_size
        if patch_size != 16 or rows % 16 or columns % 16:
            raise UsageError(
                f"img_size={rows}x{columns}, patch_size={patch_size} given; the tokens-to-token "
                "stage needs patches of 16 and a multiple of 16 pixels"
            )
        self.img_size, self.patch_size = (rows, columns), (16, 16)
        self.grid_size = (rows // 16, columns // 16)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.unfold1 = nn.Unfold(7, stride=4, padding=2)
        self.unfold2 = nn.Unfold(3, stride=2, padding=1)
        self.unfold3 = nn.Unfold(3, stride=2, padding=1)
        self.performer1 = Performer(in_chans * 7 * 7, CHANNELS)
        self.performer2 = Performer(CHANNELS * 3 * 3, CHANNELS)
        self.project = nn.Linear(CHANNELS * 3 * 3, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self.performer1(self.unfold1(x).transpose(1, 2))
        x = self.performer2(self.unfold2(_image(x, height // 4, width // 4)).transpose(1, 2))
        x = self.unfold3(_image(x, height // 8, width // 8)).transpose(1, 2)
        return self.project(x)


class Performer(nn.Module):
    """Attention of one head whose cost is linear in the tokens, and a feed-forward layer.

    With (k, q, v) = parts of W LN(x) in this order, and random features
    phi(a) = exp(a w^T - |a|^2 / 2) / sqrt(m), w (m, channels) fixed, its rows orthogonal:

        y_t = phi(q_t) [sum_s phi(k_s) v_s^T] / (phi(q_t) . sum_s phi(k_s) + 1e-8)
        out = v + dropout(proj y),  then out + mlp(LN(out)): the skip goes from v
    """

    features: Tensor  # (m, channels) w, a buffer: it is drawn once and never learns

    def __init__(self, in_channels: int, channels: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.kqv = nn.Linear(in_channels, 3 * channels)
        self.norm1, self.norm2 = nn.LayerNorm(in_channels), nn.LayerNorm(channels)
        self.proj, self.drop = nn.Linear(channels, channels), nn.Dropout(dropout)
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels),
            nn.GELU(),
            nn.Linear(channels, channels),
            nn.Dropout(dropout),
        )
        size = channels // 2
        features = nn.init.orthogonal_(torch.empty(size, channels)) * math.sqrt(size)
        self.register_buffer("features", features)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in_channels) to (B, T, channels)."""
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        k, q = self.random_features(k), self.random_features(q)
        weights = (q @ k.sum(dim=1, keepdim=True).transpose(1, 2)) + 1e-8  # (B, T, 1)
        y = (q @ (k.transpose(1, 2) @ v)) / weights
        x = v + self.drop(self.proj(y))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def random_features(self, a: Tensor) -> Tensor:
        """phi(a), (B, T, m)."""
        projected = a @ self.features.T - a.square().sum(-1, keepdim=True) / 2
        return projected.exp() / math.sqrt(len(self.features))

    def extra_repr(self) -> str:
        return f"features={len(self.features)}"


def _image(x: Tensor, *size: int) -> Tensor:
    """Tokens (B, H*W, C) as (B, C, H, W)."""
    return x.transpose(1, 2).unflatten(2, size)

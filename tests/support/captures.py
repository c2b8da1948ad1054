"""Small models and data for the pipeline's tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class Tokens(nn.Module):
    """Two LayerNorms on tokens (B, T, 8), a pooled RMSNorm, one LayerNorm that is never called."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm1, self.mix, self.norm2 = nn.LayerNorm(8), nn.Linear(8, 8), nn.LayerNorm(8)
        self.head_norm, self.unused = nn.RMSNorm(8), nn.LayerNorm(8)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        x = x + self.mix(self.norm1(x * scale)).relu_()
        return self.head_norm(self.norm2(x).mean(1))


def token_batches(images: int = 40, size: int = 8, seed: int = 0) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(images, 10, 8, generator=rng) * torch.rand(images, 10, 1, generator=rng) * 4
    return list(x.split(size))


def arrays(run, layer: str, *columns: str) -> list[np.ndarray]:
    """Columns of a layer's uniform samples as (N, C)."""
    rows = run.samples(layer, stratum="uniform")
    return [rows[name].to_numpy().reshape(rows["channel"].nunique(), -1).T for name in columns]

"""Small models and data for the tests of captures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from probe.jobs.capturing.capture import capture
from probe.jobs.fitting.fit import fit


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


class Everything(nn.Module):
    """All that a worker keeps of tokens (B, 12, 8), the first of them a prefix token of a 1 x 11
    grid: a LayerNorm called twice, attention, a norm that some batches skip, one with running
    statistics, a functional one.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.attn, self.sometimes = nn.LayerNorm(8), TwoHeads(), nn.RMSNorm(8)
        self.batch_norm, self.head = nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.batch_norm.running_mean += torch.linspace(-1, 1, 8)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm(x))
        if x[0, 0, 0] > 0:
            x = self.sometimes(x)
        x = self.batch_norm(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.head(nn.functional.layer_norm(x, (8,)))


class TwoHeads(nn.Module):
    """Attention over tokens (B, T, 8), in two heads, by scaled_dot_product_attention."""

    def __init__(self, uniform: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv = nn.Linear(8, 24)
        if uniform:
            nn.init.zeros_(self.qkv.weight)
            nn.init.zeros_(self.qkv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def token_batches(
    images: int = 40, size: int = 8, seed: int = 0, positions: int = 10
) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(images, positions, 8, generator=rng)
    return list((x * torch.rand(images, positions, 1, generator=rng) * 4).split(size))


def even_batches(images: int = 40) -> list[torch.Tensor]:
    """Tokens of mean 0 and equal spread: a LayerNorm of them is the same line for all."""
    shape = nn.LayerNorm(8, elementwise_affine=False, eps=0.0)
    return [2 * shape(batch.double()).float() for batch in token_batches(images)]


def straight_layer(out: Path) -> tuple[nn.Module, Any]:
    """A trained LayerNorm whose map is a line on `even_batches`, and its fitted run."""
    module = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.linspace(0.5, 2, 8))
        module[0].bias.copy_(torch.linspace(-1, 1, 8))
    run = capture(module, even_batches(), out=out, samples=400)
    fit(run)
    return module, run


def arrays(run, layer: str, *columns: str) -> list[np.ndarray]:
    """Columns of a layer's uniform samples as (N, C)."""
    rows = run.samples(layer, stratum="uniform")
    return [rows[name].to_numpy().reshape(rows["channel"].nunique(), -1).T for name in columns]

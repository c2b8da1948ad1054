"""The positional weights of Dynamic Token Normalization: how much each token of a grid counts in
the statistics of another.

Shao et al. 2022, https://arxiv.org/abs/2112.02624; the initial values are those of ConViT
(https://arxiv.org/abs/2103.10697). Tokens are numbered row by row; n = height * width of the grid.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from probe.norms.base import wide


class PositionProjection(nn.Module):
    """Logits of P from relative positions: weight (G, 3), bias (G). No nn.Linear, so that no model
    initializes it anew.
    """

    def __init__(self, num_heads: int, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_heads, 3, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(num_heads, device=device, dtype=dtype))

    def forward(self, offsets: Tensor) -> Tensor:
        """(G, n, n) softmax over the source i of weight . (dx, dy, dx^2 + dy^2)[i, j] + bias: the
        columns sum to one.

        The bias cancels: its gradient is zero.
        """
        weight, bias = wide(self.weight), wide(self.bias)
        return torch.softmax((offsets.to(weight.dtype) @ weight.T + bias).movedim(-1, 0), dim=1)

    def local(self, strength: float) -> None:
        """A small random start; of the heads, k * k look at one offset each, on a square around the
        token: floor(sqrt(G)) = k.

        Head h1 + k h2 has weight strength * (2 (h2 - centre), 2 (h1 - centre), -1): logit -|offset
        - its offset|^2 but for a constant. The remaining heads keep the random values; `strength`
        multiplies them too.
        """
        self.random()
        k = math.isqrt(len(self.weight))
        centre = (k - 1) / 2
        rows = [[2 * (h2 - centre), 2 * (h1 - centre), -1.0] for h2 in range(k) for h1 in range(k)]
        with torch.no_grad():
            self.weight[: k * k] = self.weight.new_tensor(rows)
            self.weight.mul_(strength)

    def random(self) -> None:
        """weight normal with standard deviation 0.02, bias 0."""
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)


def grid_offsets(height: int, width: int, device: Any = None) -> Tensor:
    """(n, n, 3) integers dx, dy, dx^2 + dy^2 with dx = column of j - column of i, dy = row of j -
    row of i.

    Integers keep their values when a module is cast to half precision.
    """
    row = torch.arange(height, device=device, dtype=torch.int32).repeat_interleave(width)
    column = torch.arange(width, device=device, dtype=torch.int32).repeat(height)
    dx, dy = (place[None, :] - place[:, None] for place in (column, row))
    return torch.stack([dx, dy, dx.square() + dy.square()], dim=-1)


def pool_factor(grid: tuple[int, int], patch_size: int) -> int:
    """How many tokens a side are averaged into one before the positional statistics: larger side //
    patch_size from 15 tokens on.
    """
    return max(max(grid) // patch_size, 1) if max(grid) > 14 else 1

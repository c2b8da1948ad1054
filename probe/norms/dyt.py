"""Dynamic Tanh: y = weight * tanh(alpha * x) + bias.

Zhu et al. 2025, Transformers without Normalization, https://arxiv.org/abs/2503.10622.
x is (B, ..., C) if channels_last, else (B, C, ...). alpha is one scalar per layer, of shape (1,); checkpoints with shape ()
load too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ElementwiseNorm(nn.Module):
    """weight * f(x) + bias per channel around an element-wise f; what the dynamic curves have in common."""

    scalars: tuple[str, ...] = ("alpha",)

    def __init__(self, channels: int, *, channels_last: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_features = channels
        self.channels_last = channels_last
        self.weight = nn.Parameter(torch.empty(channels, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(channels, device=device, dtype=dtype))

    def normalized(self, x: Tensor) -> Tensor:
        """f(x), before weight and bias."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1,) if self.channels_last else (-1, *[1] * (x.ndim - 2))
        return self.weight.view(shape) * self.normalized(x) + self.bias.view(shape)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name in self.scalars:
            value = state_dict.get(prefix + name)
            if value is not None and value.ndim == 0:
                state_dict[prefix + name] = value.reshape(1)
        super()._load_from_state_dict(state_dict, prefix, *args)


class DyT(ElementwiseNorm):
    """y = weight * tanh(alpha * x) + bias; alpha starts at `alpha_init`, weight at 1, bias at 0."""

    def __init__(
        self, channels: int, *, alpha_init: float = 0.5, channels_last: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(channels, channels_last=channels_last, device=device, dtype=dtype)
        self.alpha_init = alpha_init
        self.alpha = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.alpha, self.alpha_init)
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def normalized(self, x: Tensor) -> Tensor:
        return torch.tanh(self.alpha * x)

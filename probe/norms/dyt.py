"""Dynamic Tanh: y = weight * tanh(alpha * x) + bias.

Zhu et al. 2025, Transformers without Normalization, https://arxiv.org/abs/2503.10622.
x is (B, ..., C) if channels_last, else (B, C, ...). alpha is one scalar per layer, of shape (1,);
checkpoints with shape () load too.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probe.norms.base import ElementwiseNorm


class DyT(ElementwiseNorm):
    """y = weight * tanh(alpha * x) + bias; alpha starts at `alpha_init`, weight at 1, bias at 0.

    The authors start alpha at 0.5 in vision transformers.
    """

    families: ClassVar = ("tanh",)

    def __init__(
        self,
        channels: int,
        *,
        alpha_init: float = 0.5,
        affine: bool = True,
        bias: bool = True,
        channels_last: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            channels,
            affine=affine,
            bias=bias,
            channels_last=channels_last,
            device=device,
            dtype=dtype,
        )
        self.alpha_init = alpha_init
        self.alpha = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.constant_(self.alpha, self.alpha_init)

    def init_from_curve(
        self, family: str, *, alpha: float, shift: float, weight: Tensor, bias: Tensor
    ) -> None:
        """alpha is that of the curve."""
        self.assign(alpha=alpha, weight=weight, bias=bias)

    def normalized(self, x: Tensor) -> Tensor:
        """tanh(alpha * x)."""
        return torch.tanh(self.alpha * x)

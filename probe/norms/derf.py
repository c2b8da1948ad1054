"""Derf: y = weight * erf(alpha * x + shift) + bias.

Chen et al. 2025, Stronger Normalization-Free Transformers, https://arxiv.org/abs/2512.10938.
x is (B, ..., C) if channels_last, else (B, C, ...). alpha and shift are scalars per layer, of shape
(1,).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probe.norms.base import ElementwiseNorm


class Derf(ElementwiseNorm):
    """y = weight * erf(alpha * x + shift) + bias; alpha starts at `alpha_init`, shift at
    `shift_init`, weight at 1, bias at 0.
    """

    families: ClassVar = ("erf_shift", "erf")

    def __init__(
        self,
        channels: int,
        *,
        alpha_init: float = 0.5,
        shift_init: float = 0.0,
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
        self.alpha_init, self.shift_init = alpha_init, shift_init
        self.alpha = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.shift = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.constant_(self.alpha, self.alpha_init)
        nn.init.constant_(self.shift, self.shift_init)

    def init_from_curve(
        self, family: str, *, alpha: float, shift: float, weight: Tensor, bias: Tensor
    ) -> None:
        """alpha and shift are those of the curve."""
        self.assign(alpha=alpha, shift=shift, weight=weight, bias=bias)

    def normalized(self, x: Tensor) -> Tensor:
        """erf(alpha * x + shift)."""
        return torch.erf(self.alpha * x + self.shift)

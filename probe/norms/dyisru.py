"""Dynamic inverse square root unit: y = weight * sqrt(C) * x / sqrt(beta + x^2) + bias, the
element-wise counterpart of RMSNorm.

Stollenwerk 2026 (EACL), On the Mathematical Relationship Between Layer Normalization and Dynamic
Activation Functions, https://arxiv.org/abs/2503.21708. x is (B, ..., C) if channels_last, else
(B, C, ...).

Published: the formula, with one learnable scalar beta per layer. The author's training code leaves
sqrt(C) to the weight, adds 1e-5 under the root and starts beta at 100 unless told otherwise; divide
its weight by sqrt(C) to use it here. Ours: beta starts at 4 C, where the slope at 0, sqrt(C /
beta), is the 0.5 that a DyT starts with.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probe.norms.base import ElementwiseNorm, wide


class DyISRU(ElementwiseNorm):
    """y = weight * sqrt(C) * x / sqrt(beta + x^2) + bias; beta of shape (1,) starts at `beta_init`,
    without one at 4 C.
    """

    families: ClassVar = ("isru",)

    def __init__(
        self,
        channels: int,
        *,
        beta_init: float | None = None,
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
        self.beta_init = 4.0 * channels if beta_init is None else beta_init
        self.beta = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.constant_(self.beta, self.beta_init)

    def init_from_curve(
        self, family: str, *, alpha: float, shift: float, weight: Tensor, bias: Tensor
    ) -> None:
        """beta = alpha^-2 and weight / sqrt(C), as w u / sqrt(1 + u^2) with u = alpha x is
        (w / sqrt(C)) sqrt(C) x / sqrt(alpha^-2 + x^2).
        """
        self.assign(beta=alpha**-2, weight=weight / math.sqrt(self.num_features), bias=bias)

    def normalized(self, x: Tensor) -> Tensor:
        """sqrt(C) * x / sqrt(beta + x^2); at least in float32, since x^2 leaves the range of
        float16.
        """
        values = wide(x)
        return (
            math.sqrt(self.num_features) * values * torch.rsqrt(self.beta + values * values)
        ).to(x.dtype)

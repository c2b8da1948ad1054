"""LearnableScaler: y = weight * x + bias per channel. It normalizes nothing: no statistics,
training and evaluation are the same.

From the LearnableScaler project, a fork of timm 0.8.21 without normalization layers, where the
parameters are called a and b. x is (B, ..., C) if channels_last, else (B, C, ...).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probe.errors import unknown
from probe.norms.base import ElementwiseNorm

INITS = ("normal", "ones", "match")


class LearnableScaler(ElementwiseNorm):
    """y = weight * x + bias; bias starts at 0.

    init: `normal` draws weight from N(0, 1), as published, so gains have random signs; `ones`
    starts as the identity; `match` as well, until a replacement writes the weight and bias of the
    layer before it into it (`match_affine`).
    """

    published_keys: ClassVar = {"a": "weight", "b": "bias"}
    families: ClassVar = ("linear",)

    def __init__(
        self,
        channels: int,
        *,
        init: str = "normal",
        channels_last: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if init not in INITS:
            raise unknown("init", init, INITS)
        super().__init__(channels, channels_last=channels_last, device=device, dtype=dtype)
        self.init = init
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.init == "normal" and self.weight is not None:
            nn.init.normal_(self.weight)

    def init_from_curve(
        self, family: str, *, alpha: float, shift: float, weight: Tensor, bias: Tensor
    ) -> None:
        """weight * alpha: the line's slope."""
        self.assign(weight=weight * alpha, bias=bias)

    def normalized(self, x: Tensor) -> Tensor:
        """x itself."""
        return x

    def eval_line(self) -> tuple[Tensor, Tensor]:
        """slope 1, offset 0."""
        return torch.ones(self.num_features, dtype=torch.float64), torch.zeros(
            self.num_features, dtype=torch.float64
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, init={self.init}"

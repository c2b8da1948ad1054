"""ScaleNorm: y = weight * x / max(||x||, eps) with the Euclidean norm over the channels of each
token or pixel; no bias.

Nguyen & Salazar 2019, Transformers without Tears, https://arxiv.org/abs/1910.05895: weight is one
scalar. Dynamic Token Normalization (https://arxiv.org/abs/2112.02624) has one per channel, which
makes it RMSNorm with gain weight / sqrt(C). x is (B, ..., C) if channels_last, else (B, C, ...).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from probe.norms.base import Norm, wide


class ScaleNorm(Norm):
    """weight starts at sqrt(C): one per channel, or a single one with per_channel=False. eps is a
    bound on the norm, not added.

    normalized is sqrt(C) * x / max(||x||, eps), whose mean square is 1, so `output_affine` is
    weight / sqrt(C).
    """

    published_keys: ClassVar = {"scale": "weight"}

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        per_channel: bool = True,
        affine: bool = True,
        channels_last: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            channels,
            eps=eps,
            affine=affine,
            bias=False,
            channels_last=channels_last,
            device=device,
            dtype=dtype,
        )
        self.unit = math.sqrt(channels)
        if affine and not per_channel:
            self.weight = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.weight is not None:
            nn.init.constant_(self.weight, self.unit)

    def normalized(self, x: Tensor) -> Tensor:
        """sqrt(C) * x / max(||x||, eps)."""
        return (self.unit * self._direction(x)).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """weight * x / max(||x||, eps)."""
        self.check(x)
        return (
            self.normalized(x)
            if self.weight is None
            else self.scaled(self._direction(x).to(x.dtype))
        )

    def _direction(self, x: Tensor) -> Tensor:
        return F.normalize(wide(x), dim=self.axis, eps=self.eps)

    def output_affine(self) -> tuple[Tensor, Tensor]:
        """(weight / sqrt(C), 0)."""
        return self.on_host(self.weight, self.unit) / self.unit, self.on_host(None)

    def match_affine(self, weight: Tensor, bias: Tensor) -> None:
        """weight * sqrt(C); their mean where there is a single weight."""
        if self.weight is not None:
            given = weight if self.weight.numel() > 1 else weight.mean()
            with torch.no_grad():
                self.weight.copy_(given * self.unit)

"""Feature normalization over the channels of each token: `minmax` (x - min) / (max - min + eps),
`zscore` (x - mean) / sqrt(var + eps).

From "Research on Dynamic Normalization method in Vision Transformer", where it came before the
learnable normalizers. No parameters. x is (B, ..., C) if channels_last, else (B, C, ...). eps is
1.0 as published, so small inputs stay small.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probe.errors import unknown
from probe.norms.base import Norm, wide

METHODS = ("minmax", "zscore")


class FeatureNorm(Norm):
    """`zscore` has the biased variance, eps under the root."""

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1.0,
        method: str = "minmax",
        channels_last: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if method not in METHODS:
            raise unknown("method", method, METHODS)
        super().__init__(
            channels, eps=eps, affine=False, channels_last=channels_last, device=device, dtype=dtype
        )
        self.method = method

    def normalized(self, x: Tensor) -> Tensor:
        """(x - min) / (max - min + eps), or (x - mean) / sqrt(var + eps)."""
        values = wide(x)
        if self.method == "minmax":
            low, high = torch.aminmax(values, dim=self.axis, keepdim=True)
            return ((values - low) / (high - low + self.eps)).to(x.dtype)
        var, mean = torch.var_mean(values, dim=self.axis, correction=0, keepdim=True)
        return ((values - mean) * torch.rsqrt(var + self.eps)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, method={self.method}"

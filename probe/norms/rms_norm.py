"""Root mean square normalization: y = weight * x / sqrt(mean(x^2) + eps) over the channels of each
token or pixel; no bias.

Zhang & Sennrich 2019, Root Mean Square Layer Normalization, https://arxiv.org/abs/1910.07467.
x is (B, ..., C) if channels_last, else (B, C, ...).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from probe.norms.base import Norm


class RMSNorm(Norm):
    """y = weight * x / sqrt(mean(x^2) + eps)."""

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
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
        self.reset_parameters()

    def normalized(self, x: Tensor) -> Tensor:
        """x / sqrt(mean(x^2) + eps)."""
        return self._norm(x, None)

    def forward(self, x: Tensor) -> Tensor:
        """weight * z, in one kernel where both have the same dtype (under autocast they may
        not).
        """
        self.check(x)
        if self.weight is None or self.weight.dtype != x.dtype:
            return self.scaled(self.normalized(x))
        return self._norm(x, self.weight)

    def _norm(self, x: Tensor, weight: Tensor | None) -> Tensor:
        x = x if self.channels_last else x.movedim(1, -1)
        y = F.rms_norm(x, (self.num_features,), weight, self.eps)
        return y if self.channels_last else y.movedim(-1, 1)

"""Group normalization: y = weight * (x - mean) / sqrt(var + eps) + bias, per image and group of
channels over all its tokens.

Wu & He 2018, Group Normalization, https://arxiv.org/abs/1803.08494 (images, 32 groups); on tokens,
a group being the channels of one head, in Dynamic Token Normalization,
https://arxiv.org/abs/2112.02624. Groups are blocks of neighbouring channels. x is (B, T, C) if
channels_last, else (B, C, H, W).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from probe.norms.base import Norm, channels_per_head


class GroupNorm(Norm):
    """Mean and biased variance over T x C_h entries: between tokens, not per token. `num_heads` is
    the number of groups.
    """

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        num_heads: int = 1,
        affine: bool = True,
        bias: bool = True,
        channels_last: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        channels_per_head(channels, num_heads)
        super().__init__(
            channels,
            eps=eps,
            affine=affine,
            bias=bias,
            channels_last=channels_last,
            device=device,
            dtype=dtype,
        )
        self.num_heads = num_heads
        self.reset_parameters()

    def normalized(self, x: Tensor) -> Tensor:
        """(x - mean) / sqrt(var + eps)."""
        return self._norm(x, None, None)

    def forward(self, x: Tensor) -> Tensor:
        """weight * z + bias in one kernel."""
        self.check(x)
        return self._norm(x, self.weight, self.bias)

    def _norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        x = x.movedim(-1, 1) if self.channels_last else x
        y = F.group_norm(x, self.num_heads, weight, bias, self.eps)
        return y.movedim(1, -1) if self.channels_last else y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_heads={self.num_heads}"

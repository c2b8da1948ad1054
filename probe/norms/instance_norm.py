"""Instance normalization: y = weight * (x - mean) / sqrt(var + eps) + bias, per image and channel
over its tokens or pixels.

Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022 (images, biased variance); on tokens with the
unbiased variance in Dynamic Token Normalization, https://arxiv.org/abs/2112.02624. x is (B, T, C)
if channels_last, else (B, C, H, W). A class token takes part.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from probe.errors import UsageError
from probe.norms.base import Norm, wide


class InstanceNorm(Norm):
    """No running statistics: training and evaluation are the same. `unbiased`: divide by n - 1
    (DTN's tokens) or by n.
    """

    fewest_axes: ClassVar = 3

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        unbiased: bool = True,
        affine: bool = True,
        bias: bool = True,
        channels_last: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            channels,
            eps=eps,
            affine=affine,
            bias=bias,
            channels_last=channels_last,
            device=device,
            dtype=dtype,
        )
        self.unbiased = unbiased
        self.reset_parameters()

    def normalized(self, x: Tensor) -> Tensor:
        """(x - mean) / sqrt(var + eps). Raises UsageError for one token with the unbiased variance,
        which would be 0 / 0.
        """
        axes = self.inner_axes(x)
        if self.unbiased and math.prod([x.shape[axis] for axis in axes]) < 2:
            raise UsageError(
                f"InstanceNorm: one token per image, shape {tuple(x.shape)}, has no unbiased "
                "variance; unbiased=False takes it"
            )
        values = wide(x)
        var, mean = torch.var_mean(values, dim=axes, correction=int(self.unbiased), keepdim=True)
        return ((values - mean) * torch.rsqrt(var + self.eps)).to(x.dtype)

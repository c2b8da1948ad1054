"""Layer normalization: y = weight * (x - mean) / sqrt(var + eps) + bias over the channels of each
token or pixel.

Ba et al. 2016, Layer Normalization, https://arxiv.org/abs/1607.06450.
x is (B, ..., C) if channels_last, else (B, C, ...): the "LayerNorm2d" of timm and ConvNeXt,
statistics over C at each pixel.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from probe.norms.base import Norm


class LayerNorm(Norm):
    """y = weight * (x - mean) / sqrt(var + eps) + bias with the biased variance."""

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
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
        self.reset_parameters()

    def normalized(self, x: Tensor) -> Tensor:
        """(x - mean) / sqrt(var + eps)."""
        return layer_normalized(x, self, None, None)

    def forward(self, x: Tensor) -> Tensor:
        """weight * z + bias in one kernel."""
        self.check(x)
        return layer_normalized(x, self, self.weight, self.bias)


def layer_normalized(x: Tensor, norm: Norm, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """weight * (x - mean) / sqrt(var + eps) + bias with the layout and eps of `norm`."""
    rows = x if norm.channels_last else x.movedim(1, -1)
    y = F.layer_norm(rows, (norm.num_features,), weight, bias, norm.eps)
    return y if norm.channels_last else y.movedim(-1, 1)

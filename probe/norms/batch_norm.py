"""Batch normalization: y = weight * (x - mean) / sqrt(var + eps) + bias, per channel over the batch
and all tokens or pixels.

Ioffe & Szegedy 2015, Batch Normalization, https://arxiv.org/abs/1502.03167; on tokens as in Dynamic
Token Normalization (Shao et al. 2022, https://arxiv.org/abs/2112.02624). x is (B, ..., C) if
channels_last, else (B, C, ...). A class token takes part.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from probe.norms.base import Norm


class RunningNorm(Norm):
    """BatchNorm's statistics: those of the batch in training, the running ones at evaluation.

    running <- (1 - momentum) * running + momentum * batch, the variance of the batch being biased
    where it normalizes and unbiased where it is kept.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, channels: int, *, momentum: float, device: Any, dtype: Any, **common: Any
    ) -> None:
        super().__init__(channels, device=device, dtype=dtype, **common)
        self.momentum = momentum
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, torch.empty(channels, device=device, dtype=dtype))
        self.register_buffer(
            "num_batches_tracked", torch.zeros((), dtype=torch.int64, device=device)
        )

    def reset_parameters(self) -> None:
        """weight 1, bias 0, running mean 0, running variance 1."""
        super().reset_parameters()
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    def batch_normalized(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, *, update: bool
    ) -> Tensor:
        """weight * (x - mean) / sqrt(var + eps) + bias; `update` the running statistics if in
        training.
        """
        mean, var = (
            (self.running_mean, self.running_var) if update or not self.training else (None, None)
        )
        if update and self.training:
            self.num_batches_tracked.add_(1)
        rows = x.reshape(-1, self.num_features) if self.channels_last else x
        y = F.batch_norm(rows, mean, var, weight, bias, self.training, self.momentum, self.eps)
        return y.reshape(x.shape)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, momentum={self.momentum}"

    def running_line(self) -> tuple[Tensor, Tensor]:
        """slope = 1 / sqrt(running_var + eps), offset = -running_mean * slope: float64 on the
        host.
        """
        slope = torch.rsqrt(self.on_host(self.running_var) + self.eps)
        return slope, -self.on_host(self.running_mean) * slope


class BatchNorm(RunningNorm):
    """y = weight * (x - mean) / sqrt(var + eps) + bias; at evaluation a line per channel."""

    published_keys: ClassVar = {
        f"bn.{name}": name
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        bias: bool = True,
        channels_last: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        common = {
            "affine": affine,
            "bias": bias,
            "channels_last": channels_last,
            "device": device,
            "dtype": dtype,
        }
        super().__init__(channels, eps=eps, momentum=momentum, **common)
        self.reset_parameters()

    def normalized(self, x: Tensor) -> Tensor:
        """(x - mean) / sqrt(var + eps); changes no buffer."""
        return self.batch_normalized(x, None, None, update=False)

    def forward(self, x: Tensor) -> Tensor:
        """weight * z + bias in one kernel."""
        self.check(x)
        return self.batch_normalized(x, self.weight, self.bias, update=True)

    def eval_line(self) -> tuple[Tensor, Tensor]:
        return self.running_line()

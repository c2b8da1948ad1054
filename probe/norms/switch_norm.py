"""Switchable normalization: y = weight * (x - mean) / sqrt(var + eps) + bias, with mean and var
learned mixtures of those of instance, layer and batch normalization.

Luo et al. 2018, Differentiable Learning-to-Normalize via Switchable Normalization,
https://arxiv.org/abs/1806.10779, on images (B, C, H, W) if not channels_last. On tokens (B, T, C)
the same on (B, C, T, 1): instance statistics over the tokens of an image, layer statistics over its
tokens and channels together (not per token), batch statistics over batch and tokens. A class token
takes part.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probe.errors import UsageError
from probe.norms.base import Norm, wide


class SwitchNorm(Norm):
    """Per image n and channel c, with mean_in and the unbiased var_in over the positions:

    mean_ln = mean over c of mean_in;  var_ln = mean over c of (var_in + mean_in^2) - mean_ln^2;
    mean_bn, var_bn the same over n; mean = sum of softmax(mean_weight) * (mean_in, mean_ln,
    mean_bn), var likewise with var_weight.

    Batch statistics are the batch's in training and the running ones at evaluation, running <-
    momentum running + (1 - momentum)
    batch: `momentum` is what is kept. using_moving_average=False sums them up instead;
    `average_statistics` then divides. using_bn=False leaves them out (two logits); last_gamma=True
    starts weight at 0.

    Published code starts running_var at 0, which blows up an evaluation before or soon after the
    first step. Here it starts at `initial_var`, 1 unless set; sums start at 0. Outputs in training
    do not depend on it.
    """

    fewest_axes: ClassVar = 3
    mean_weight: nn.Parameter  # (3,) logits of instance, layer, batch
    var_weight: nn.Parameter
    running_mean: Tensor  # (1, C, 1)
    running_var: Tensor

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.9,
        using_moving_average: bool = True,
        using_bn: bool = True,
        last_gamma: bool = False,
        initial_var: float = 1.0,
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
        self.momentum, self.using_moving_average, self.using_bn = (
            momentum,
            using_moving_average,
            using_bn,
        )
        self.last_gamma, self.initial_var = last_gamma, initial_var
        for name in ("mean_weight", "var_weight"):
            self.register_parameter(
                name, nn.Parameter(torch.empty(3 if using_bn else 2, device=device, dtype=dtype))
            )
        for name in ("running_mean", "running_var") if using_bn else ():
            self.register_buffer(name, torch.empty(1, channels, 1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight 1 (0 with last_gamma), bias 0, equal logits; the running statistics as they
        start.
        """
        super().reset_parameters()
        if self.last_gamma and self.weight is not None:
            nn.init.zeros_(self.weight)
        nn.init.ones_(self.mean_weight)
        nn.init.ones_(self.var_weight)
        if self.using_bn:
            self.running_mean.zero_()
            self.running_var.fill_(self.initial_var if self.using_moving_average else 0)

    def normalized(self, x: Tensor) -> Tensor:
        """(x - mean) / sqrt(var + eps); changes no buffer."""
        return self._normalized(x, _instance(self._planes(x)))

    def forward(self, x: Tensor) -> Tensor:
        """weight * z + bias."""
        self.check(x)
        instance = _instance(self._planes(x))
        y = self.scaled(self._normalized(x, instance))
        if self.training and self.using_bn:
            self._keep(*_pooled(*instance, axis=0))
        return y

    @torch.no_grad()
    def average_statistics(self, batches: int) -> None:
        """Turn the sums of using_moving_average=False over this many training batches into a mean
        and a variance.
        """
        self.running_mean.div_(batches)
        self.running_var.div_(batches).sub_(self.running_mean.square())

    def _planes(self, x: Tensor) -> Tensor:
        """(B, C, positions)."""
        planes = wide(x).movedim(self.axis, 1).flatten(2)
        if planes.shape[2] < 2:
            raise UsageError(
                f"SwitchNorm: one position per image, shape {tuple(x.shape)}, has no unbiased "
                "variance"
            )
        return planes

    def _normalized(self, x: Tensor, instance: tuple[Tensor, Tensor]) -> Tensor:
        parts = [instance, _pooled(*instance, axis=1)]
        if self.using_bn:
            parts.append(self._batch(instance))
        mean, var = (
            sum(
                share * part
                for share, part in zip(torch.softmax(wide(logits), 0), values, strict=True)
            )
            for logits, values in zip(
                (self.mean_weight, self.var_weight), zip(*parts, strict=True), strict=True
            )
        )
        planes = (self._planes(x) - mean) / torch.sqrt(var + self.eps)
        return (
            planes.unflatten(2, [x.shape[axis] for axis in self.inner_axes(x)])
            .movedim(1, self.axis)
            .to(x.dtype)
        )

    def _batch(self, instance: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if self.training:
            return _pooled(*instance, axis=0)
        return wide(self.running_mean), wide(self.running_var)

    @torch.no_grad()
    def _keep(self, mean: Tensor, var: Tensor) -> None:
        if self.using_moving_average:
            kept, added, second = self.momentum, 1 - self.momentum, var
        else:
            kept, added, second = 1.0, 1.0, mean.square() + var
        self.running_mean.copy_(kept * wide(self.running_mean) + added * mean)
        self.running_var.copy_(kept * wide(self.running_var) + added * second)


def _instance(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of each plane, (B, C, 1)."""
    var, mean = torch.var_mean(planes, dim=2, correction=1, keepdim=True)
    return mean, var


def _pooled(mean: Tensor, var: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Mean and variance over an axis of planes: mean of (var + mean^2) - (mean of mean)^2, in the
    form that cannot turn negative.
    """
    spread, whole = torch.var_mean(mean, dim=axis, correction=0, keepdim=True)
    return whole, var.mean(axis, keepdim=True) + spread

"""PowerNorm: y = weight * u / sqrt(phi + eps) + bias, where phi is a running mean of the second
moment of u and u is x over its root mean square per token and head.

Shen et al. 2020, PowerNorm, https://arxiv.org/abs/2003.07845, in the variant of Dynamic Token
Normalization (Shao et al. 2022, https://arxiv.org/abs/2112.02624): x is (B, T, C), heads are blocks
of neighbouring channels. The original divides by the moment of the batch at every training step;
this variant does so during warm-up only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from probe.norms.base import channels_per_head, wide
from probe.norms.second_moment import (
    SecondMomentNorm,
    Step,
    Turn,
    affine_gradients,
    means_over_rows,
    scaled_rows,
)

_GROUP_EPS = 1e-5  # of the root mean square per head, whatever eps is


class PowerNorm(SecondMomentNorm):
    """At evaluation u / sqrt(running_phi + eps), after the scaling by heads; at training step t
    (from 1), v the batch moment of u:

    - forward: moment = v while t <= warmup, later running_phi as it was before this step;
    - then running_phi <- running_phi (t-1)/t + v/t while t < warmup, and after it, at every step,
      running_phi <- alpha_fwd running_phi + (1-alpha_fwd) v: two updates per step during warm-up,
      as published;
    - backward: see `_PowerStep`. It divides by the batch moment while t < warmup, by the new
      running_phi from t = warmup on: at t = warmup forward and backward differ, as published.

    The class as published warms up for 10000 steps, the networks of the DTN paper for 3000.
    """

    running_phi: Tensor  # (1, C, 1, 1)
    ema_gz: Tensor  # (1, C, 1, 1) what the backward pass has summed up

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        num_heads: int = 1,
        warmup: int = 10000,
        alpha_fwd: float = 0.9,
        alpha_bkw: float = 0.9,
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
        channels_per_head(channels, num_heads)
        super().__init__(channels, eps=eps, **common)
        self.num_heads, self.warmup, self.alpha_fwd, self.alpha_bkw = (
            num_heads,
            warmup,
            alpha_fwd,
            alpha_bkw,
        )
        for name in ("running_phi", "ema_gz"):
            self.register_buffer(name, torch.empty(1, channels, 1, 1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight 1, bias 0, running_phi 1, ema_gz 0, no step made."""
        super().reset_parameters()
        self.running_phi.fill_(1)
        self.ema_gz.zero_()

    def grouped(self, rows: Tensor) -> Tensor:
        """u = x / sqrt(mean of x^2 over the channels of the head + 1e-5), per token; ordinary
        gradients.
        """
        heads = rows.unflatten(-1, (self.num_heads, -1))
        return (heads / torch.sqrt(heads.square().mean(-1, keepdim=True) + _GROUP_EPS)).flatten(-2)

    def running_moment(self) -> Tensor:
        return self.running_phi.view(-1)

    def next_step(self, moment: Tensor) -> Step:
        step = self.iters + 1
        before = wide(self.running_moment())
        count = step.to(moment.dtype)
        warming = step < self.warmup
        phi = torch.where(warming, before * (count - 1) / count + moment / count, before)
        phi = self.alpha_fwd * phi + (1 - self.alpha_fwd) * moment
        used = torch.where(step <= self.warmup, moment, before)
        return Step(used, {"running_phi": phi}, {"moment": torch.where(warming, moment, phi)})

    def apply_step(
        self, u: Tensor, weight: Tensor | None, bias: Tensor | None, step: Step, turn: Turn | None
    ) -> Tensor:
        roots = [torch.sqrt(moment + self.eps) for moment in (step.moment, step.backward["moment"])]
        y: Tensor = _PowerStep.apply(u, weight, bias, *roots, self.ema_gz, self.alpha_bkw, turn)
        return y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_heads={self.num_heads}, warmup={self.warmup}"


class _PowerStep(torch.autograd.Function):
    """y = weight * z + bias, z = u / root. The backward pass, with g = dy * weight and ema = ema_gz
    before this step:

    q = g - (1 - alpha_bkw) ema z;  ema_gz <- ema + mean over rows of q z;  du = q / backward_root.
    """

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        root: Tensor,
        backward_root: Tensor,
        ema_gz: Tensor,
        alpha_bkw: float,
        turn: Turn | None,
    ) -> Tensor:
        z = u / root
        ctx.save_for_backward(z, weight, backward_root)
        ctx.ema_gz, ctx.alpha_bkw, ctx.turn = ema_gz, alpha_bkw, turn
        return scaled_rows(z, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # first of all: with checkpointing this line runs the forward pass again
        z, weight, root = ctx.saved_tensors
        ctx.turn.take()
        ema = wide(ctx.ema_gz.view(-1))
        q = (grad if weight is None else grad * weight) - (1 - ctx.alpha_bkw) * ema * z
        ctx.ema_gz.add_(means_over_rows(q * z).view(ctx.ema_gz.shape))
        return (q / root, *affine_gradients(ctx, grad, z), None, None, None, None, None)

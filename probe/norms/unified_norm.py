"""Unified Normalization: y = weight * x / sqrt(var + eps) + bias, where var is a second moment
smoothed over the last steps.

Yang et al. 2022, Unified Normalization for Accelerating and Stabilizing Transformers,
https://arxiv.org/abs/2208.01313. x is (B, T, C); (T, C) counts as one image. At evaluation a line
per channel, which folds into a neighbouring linear layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from probe.errors import UsageError
from probe.norms.base import wide
from probe.norms.second_moment import (
    SecondMomentNorm,
    Step,
    Turn,
    affine_gradients,
    means_over_rows,
    scaled_rows,
)

_LARGEST_RATIO = 5.0  # between this step's root and the running one, in the gradients
_NO_RATIO_BEFORE = 1000  # steps


class UnifiedNorm(SecondMomentNorm):
    """At evaluation x / sqrt(running_var + eps); at training step t (from 1), x2 (C,) the second
    moment of the batch:

    1. spread = unbiased variance of sqrt(buffer_x2) over all its entries, as the previous step
       left it;
    2. buffer_x2[t mod window] <- x2;  skip = the window is 1;
    3. if filter_outliers and t >= warmup: an outlier is a window where for any channel the
       arithmetic mean exceeds the geometric one by more than window * spread. Then
       buffer_x2[t mod window] <- running_var, skip, and skip_counter counts it;
    4. var = x2 while t <= window or t < warmup or at a skip, else the geometric mean over the
       window;
    5. ratio = sqrt(var + eps) / sqrt(running_var + eps) within 1/5 .. 5, and 1 while
       t <= max(1000, warmup) or at a skip;
    6. running_var <- momentum running_var + (1 - momentum) var: `momentum` is what is kept.

    `window` is one number, or one for the forward and one for the backward pass. Backward: see
    `_UnifiedStep`.
    """

    running_var: Tensor  # (C,)
    ema_gz: Tensor  # (C,)
    buffer_x2: Tensor  # (window, C)
    buffer_gz: Tensor  # (window of the backward pass, C)
    skip_counter: Tensor

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        window: int | tuple[int, int] = 4,
        warmup: int = 4000,
        filter_outliers: bool = False,
        momentum: float = 0.9,
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
        super().__init__(channels, eps=eps, **common)
        self.window, self.backward_window = (window, window) if isinstance(window, int) else window
        if min(self.window, self.backward_window) < 1:
            raise UsageError(
                f"window={window} given; a number of steps from 1 is needed, or two of them"
            )
        self.warmup, self.filter_outliers, self.momentum = warmup, filter_outliers, momentum
        sizes = {
            "running_var": (),
            "ema_gz": (),
            "buffer_x2": (self.window,),
            "buffer_gz": (self.backward_window,),
        }
        for name, size in sizes.items():
            self.register_buffer(name, torch.empty(*size, channels, device=device, dtype=dtype))
        self.register_buffer("skip_counter", torch.empty(1, dtype=torch.int64, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight 1, bias 0, running_var 1, every other buffer 0."""
        super().reset_parameters()
        self.running_var.fill_(1)
        for buffer in (self.ema_gz, self.buffer_x2, self.buffer_gz, self.skip_counter):
            buffer.zero_()

    def running_moment(self) -> Tensor:
        return self.running_var

    def eval_line(self) -> tuple[Tensor, Tensor]:
        slope = torch.rsqrt(self.on_host(self.running_var) + self.eps)
        return slope, torch.zeros_like(slope)

    def next_step(self, moment: Tensor) -> Step:
        step = self.iters + 1
        running = wide(self.running_var)
        buffer, outlier = self._window_with(moment, step)
        skip = outlier | (self.window <= 1)
        batch_only = (step <= self.window) | (step < self.warmup) | skip
        var = torch.where(batch_only, moment, geometric_mean(buffer))
        ratio = (torch.sqrt(var + self.eps) / torch.sqrt(running + self.eps)).clamp(
            1 / _LARGEST_RATIO, _LARGEST_RATIO
        )
        ratio = torch.where((step <= max(_NO_RATIO_BEFORE, self.warmup)) | skip, 1.0, ratio)
        kept = self.momentum * running + (1 - self.momentum) * var
        state = {
            "running_var": kept,
            "buffer_x2": buffer,
            "skip_counter": self.skip_counter + outlier,
        }
        gradient_only = (step <= self.backward_window) | (step < self.warmup) | skip
        backward = {
            "ratio": ratio,
            "row": step % self.backward_window,
            "skip": skip,
            "gradient_only": gradient_only,
        }
        return Step(var, state, backward)

    def _window_with(self, moment: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """The window with this step in it, and whether the step is an outlier (then running_var
        stands in its place).
        """
        before, row = wide(self.buffer_x2), step % self.window
        buffer = before.index_copy(0, row, moment[None].to(before.dtype))
        if not self.filter_outliers or before.numel() < 2:  # one number has no variance
            return buffer, torch.zeros_like(step, dtype=torch.bool)
        gap = buffer.mean(0) - geometric_mean(buffer)
        outlier = (step >= self.warmup) & (gap > self.window * before.sqrt().var()).any()
        return torch.where(
            outlier, before.index_copy(0, row, wide(self.running_var)[None]), buffer
        ), outlier

    def apply_step(
        self, u: Tensor, weight: Tensor | None, bias: Tensor | None, step: Step, turn: Turn | None
    ) -> Tensor:
        root = torch.sqrt(step.moment + self.eps)
        y: Tensor = _UnifiedStep.apply(
            u, weight, bias, root, step.backward, (self.ema_gz, self.buffer_gz), self.momentum, turn
        )
        return y

    def extra_repr(self) -> str:
        windows = (self.window, self.backward_window)
        return (
            f"{super().extra_repr()}, window={windows}, warmup={self.warmup}, "
            f"filter_outliers={self.filter_outliers}"
        )


class _UnifiedStep(torch.autograd.Function):
    """y = weight * z + bias, z = x / root. The backward pass, with g = dy * weight * ratio and gz
    the mean over rows of g z:

    buffer_gz[t mod window] <- gz (at a skip ema_gz);  mean_gz = gz while t <= window or t < warmup
    or at a skip, else the mean of buffer_gz;  ema_gz <- momentum ema_gz + (1 - momentum) mean_gz;
    dx = (g - ema_gz z) / root (at a skip mean_gz for ema_gz); dweight = sum of dy ratio z, dbias =
    sum of dy.
    """

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        root: Tensor,
        step: dict[str, Tensor],
        buffers: tuple[Tensor, Tensor],
        momentum: float,
        turn: Turn | None,
    ) -> Tensor:
        z = u / root
        ctx.save_for_backward(z, weight, root)
        ctx.step, ctx.buffers, ctx.momentum, ctx.turn = step, buffers, momentum, turn
        return scaled_rows(z, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, weight, root = (
            ctx.saved_tensors
        )  # first: with checkpointing this line runs the forward pass again
        ctx.turn.take()
        ratio, skip = ctx.step["ratio"], ctx.step["skip"]
        g = (grad if weight is None else grad * weight) * ratio
        mean_gz, ema = _smoothed(ctx, means_over_rows(g * z))
        dx = (g - torch.where(skip, mean_gz, ema) * z) / root
        return (dx, *affine_gradients(ctx, grad, ratio * z), None, None, None, None, None)


def _smoothed(ctx: Any, gz: Tensor) -> tuple[Tensor, Tensor]:
    """(mean_gz, new ema_gz) of a backward pass; moves both buffers."""
    ema_gz, buffer_gz = ctx.buffers
    ema, step = wide(ema_gz), ctx.step
    buffer_gz.index_copy_(
        0, step["row"], torch.where(step["skip"], ema, gz)[None].to(buffer_gz.dtype)
    )
    mean_gz = torch.where(step["gradient_only"], gz, wide(buffer_gz).mean(0))
    ema = ctx.momentum * ema + (1 - ctx.momentum) * mean_gz
    ema_gz.copy_(ema)
    return mean_gz, ema


def geometric_mean(values: Tensor) -> Tensor:
    """(C,) over the first axis; 0 where a value is 0."""
    return values.log().mean(0).exp()

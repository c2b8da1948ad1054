"""What PowerNorm and UnifiedNorm share: y = weight * u / sqrt(moment + eps) + bias, the mean is
never subtracted.

In training the moment is that of the batch or one kept over the steps, and the backward pass is the
published one, which takes the statistics as constants and moves buffers itself. Layout of the work:
channels last, rows = every other axis.

Each training forward pass is one step of the statistics and is followed by its own backward pass. A
backward pass whose forward pass is not the last one (the layer called twice in one pass, gradient
checkpointing without reentry), or a second one, is an error, because the buffers have moved on.
Forward passes under no_grad await none: they count as steps and disturb nothing. Reentrant
checkpointing makes two steps of one, as with every batch statistic. With a loss scaler the running
gradient is in units of the scaled loss.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from probe.errors import UsageError
from probe.norms.base import Norm, wide


class Step(NamedTuple):
    """One step of the statistics: `moment` normalizes this batch, `state` is what the buffers
    become, `backward` what the backward pass needs."""

    moment: Tensor  # (C,)
    state: dict[str, Tensor]
    backward: dict[str, Tensor]


class SecondMomentNorm(Norm):
    """A subclass gives `next_step`, `apply_step` and `running_moment`, and `grouped` if it scales x
    first.
    """

    iters: Tensor

    def __init__(
        self, channels: int, *, device: Any = None, dtype: Any = None, **common: Any
    ) -> None:
        super().__init__(channels, device=device, dtype=dtype, **common)
        self.register_buffer("iters", torch.zeros(1, dtype=torch.int64, device=device))
        self._last_moment: Tensor | None = (
            None  # of the last training step, for `normalized`; no state
        )
        self._turn = 0

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.iters.zero_()
        self._last_moment = None

    def grouped(self, rows: Tensor) -> Tensor:
        """u, what the moment is taken of."""
        return rows

    def running_moment(self) -> Tensor:
        """(C,) the moment at evaluation."""
        raise NotImplementedError

    def next_step(self, moment: Tensor) -> Step:
        """The step that a batch with this second moment (C,) makes; changes no buffer."""
        raise NotImplementedError

    def apply_step(
        self, u: Tensor, weight: Tensor | None, bias: Tensor | None, step: Step, turn: Turn | None
    ) -> Tensor:
        """weight * u / sqrt(step.moment + eps) + bias with the published backward pass."""
        raise NotImplementedError

    def normalized(self, x: Tensor) -> Tensor:
        """u / sqrt(moment + eps): in training the moment of the last forward pass, before any that
        of the step x would make.
        """
        u = self.grouped(self._rows(x))
        moment = self._training_moment(u) if self.training else wide(self.running_moment())
        return (u / torch.sqrt(moment + self.eps)).movedim(-1, self.axis).to(x.dtype)

    def forward(self, x: Tensor, pad_mask: Tensor | None = None) -> Tensor:
        """weight * z + bias. `pad_mask` (B, T), True at padding: those rows are normalized but stay
        out of the batch moment.
        """
        self.check(x)
        if not self.training:
            return self.scaled(self.normalized(x))
        train = type(self)._train
        if (
            torch.compiler.is_compiling()
        ):  # buffers that move in the backward pass do not belong into a graph
            train = torch.compiler.disable(train)
        return train(self, x, pad_mask)

    def _train(self, x: Tensor, pad_mask: Tensor | None) -> Tensor:
        u = self.grouped(self._rows(x))
        with torch.no_grad():
            step = self.next_step(second_moment(u, pad_mask))
            for name, value in step.state.items():
                buffer = getattr(self, name)
                buffer.copy_(value.view(buffer.shape))
            self.iters.add_(1)
        self._last_moment = step.moment
        weight, bias = (
            None if value is None else value.to(u.dtype) for value in (self.weight, self.bias)
        )
        awaited = torch.is_grad_enabled() and any(
            t is not None and t.requires_grad for t in (u, weight, bias)
        )
        y = self.apply_step(u, weight, bias, step, Turn(self) if awaited else None)
        given = x.dtype if self.weight is None else torch.promote_types(x.dtype, self.weight.dtype)
        return y.movedim(-1, self.axis).to(given)

    @torch.no_grad()
    def _training_moment(self, u: Tensor) -> Tensor:
        if self._last_moment is None:
            return self.next_step(second_moment(u.detach(), None)).moment
        return self._last_moment.to(u.device)

    def _rows(self, x: Tensor) -> Tensor:
        return wide(x).movedim(self.axis, -1)


class Turn:
    """The right of one forward pass to one backward pass."""

    def __init__(self, norm: SecondMomentNorm) -> None:
        self.norm = norm
        norm._turn += 1
        self.number = norm._turn

    def take(self) -> None:
        """Raises RuntimeError if another forward pass came in between, or if the turn is taken
        already.
        """
        if self.norm._turn != self.number:
            raise RuntimeError(
                f"{type(self.norm).__name__}: backward of a training forward pass that is not the "
                "last one, or a second backward; "
                "run each training forward pass with its own backward (no shared layer, no "
                "checkpointing) or under torch.no_grad()"
            )
        self.norm._turn += 1


def second_moment(u: Tensor, pad_mask: Tensor | None) -> Tensor:
    """(C,) mean of u^2 over all rows, or over those that are no padding."""
    rows = u.reshape(-1, u.shape[-1]).square()
    if pad_mask is None:
        return rows.mean(0)
    if pad_mask.numel() != len(rows):
        raise UsageError(
            f"pad_mask of shape {tuple(pad_mask.shape)} given; {tuple(u.shape[:-1])} is needed, "
            "True at padding"
        )
    kept = ~pad_mask.reshape(-1, 1).bool()
    return torch.where(kept, rows, 0).sum(0) / kept.sum().clamp(min=1)


def sums_over_rows(values: Tensor) -> Tensor:
    """(C,) sum over all rows."""
    return values.reshape(-1, values.shape[-1]).sum(0)


def means_over_rows(values: Tensor) -> Tensor:
    """(C,) mean over all rows."""
    return values.reshape(-1, values.shape[-1]).mean(0)


def scaled_rows(z: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """weight * z + bias on the last axis."""
    z = z if weight is None else weight * z
    return z if bias is None else z + bias


def affine_gradients(ctx: Any, grad: Tensor, z: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of weight (sum of grad * z) and bias (sum of grad), where asked for; they are
    inputs 1 and 2.
    """
    weight = sums_over_rows(grad * z) if ctx.needs_input_grad[1] else None
    return weight, sums_over_rows(grad) if ctx.needs_input_grad[2] else None

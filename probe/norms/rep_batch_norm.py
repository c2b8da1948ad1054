"""Re-parameterized batch normalization: RepBN(x) = BN(x) + eta * x, reached from LayerNorm step by
step.

Guo et al. 2024 (SLAB), https://arxiv.org/abs/2405.11582: y = share * LN(x) + (1 - share) *
RepBN(x), and share falls from 1 to 0 in equal steps of training. BN and LN have an affine each; eta
is one scalar per layer and starts at 1. Once the share is 0, y is a line per channel at evaluation,
which folds into a neighbouring linear layer. x is (B, ..., C) if channels_last, else (B, C, ...).
Statistics of BN as in `batch_norm`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probe.errors import UsageError
from probe.norms.batch_norm import RunningNorm
from probe.norms.layer_norm import layer_normalized

_BATCH = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class RepBatchNorm(RunningNorm):
    """RepBN alone, or with decay_steps > 0 after LayerNorm: `warmup` training steps of LayerNorm
    alone, then `decay_steps` of both.

    The published code evaluates RepBN alone at any time. Here an evaluation has the share that the
    next training step would have, so a model that starts from LayerNorm evaluates as LayerNorm.
    normalized is the output: BN + eta * x has no z of its own.
    """

    published_keys: ClassVar = {
        **{f"{place}bn.{name}": name for place in ("", "norm2.") for name in _BATCH},
        "alpha": "eta",
        "norm2.alpha": "eta",
        "norm1.weight": "layer_weight",
        "norm1.bias": "layer_bias",
        "warm": "warmup_left",
        "iter": "steps_left",
        "total_step": "decay_steps",
    }

    layer_weight: nn.Parameter | None
    layer_bias: nn.Parameter | None
    warmup_left: Tensor
    steps_left: Tensor
    decay_steps: Tensor
    last_left: Tensor

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        warmup: int = 0,
        decay_steps: int = 0,
        affine: bool = True,
        bias: bool = True,
        channels_last: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if warmup and not decay_steps:
            raise UsageError(
                f"RepBatchNorm: warmup={warmup} needs decay_steps, the steps from LayerNorm to "
                "RepBN after it"
            )
        common = {
            "affine": affine,
            "bias": bias,
            "channels_last": channels_last,
            "device": device,
            "dtype": dtype,
        }
        super().__init__(channels, eps=eps, momentum=momentum, **common)
        self.warmup, self.steps = warmup, decay_steps
        self.eta = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        for name, own in (("layer_weight", self.weight), ("layer_bias", self.bias)):
            self.register_parameter(
                name,
                nn.Parameter(torch.empty_like(own)) if decay_steps and own is not None else None,
            )
        if decay_steps:
            for name in ("warmup_left", "steps_left", "decay_steps"):
                self.register_buffer(name, torch.empty((), dtype=torch.int64, device=device))
            self.register_buffer(
                "last_left", torch.empty((), dtype=torch.int64, device=device), persistent=False
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """eta and the weights 1, the biases 0, the schedule at its start."""
        super().reset_parameters()
        nn.init.ones_(self.eta)
        if self.layer_weight is not None:
            nn.init.ones_(self.layer_weight)
        if self.layer_bias is not None:
            nn.init.zeros_(self.layer_bias)
        if self.steps:
            self.warmup_left.fill_(self.warmup)
            for buffer in (self.steps_left, self.last_left, self.decay_steps):
                buffer.fill_(self.steps)

    def normalized(self, x: Tensor) -> Tensor:
        """share * LN(x) + (1 - share) * RepBN(x), the output; changes no buffer."""
        if not self.steps:
            return self._rep(x, update=False)
        return self._mixed(x, self.last_left if self.training else self.steps_left, update=False)

    def forward(self, x: Tensor) -> Tensor:
        """share * LN(x) + (1 - share) * RepBN(x); in training a step of the schedule."""
        self.check(x)
        if not self.steps:
            return self._rep(x, update=True)
        if not self.training:
            return self._mixed(x, self.steps_left, update=False)
        self.last_left.copy_(self.steps_left)
        if self.warmup_left > 0:
            self.warmup_left.sub_(1)
            return self._layer(x)
        self.steps_left.sub_(1).clamp_(min=0)
        return self._mixed(x, self.last_left, update=True)

    def _mixed(self, x: Tensor, left: Tensor, *, update: bool) -> Tensor:
        """share * LN(x) + (1 - share) * RepBN(x), share = left / decay_steps."""
        share = left / self.decay_steps
        return share * self._layer(x) + (1 - share) * self._rep(x, update=update)

    def _rep(self, x: Tensor, *, update: bool) -> Tensor:
        """BN(x) + eta * x."""
        return self.batch_normalized(x, self.weight, self.bias, update=update) + self.eta * x

    def _layer(self, x: Tensor) -> Tensor:
        return layer_normalized(x, self, self.layer_weight, self.layer_bias)

    def eval_line(self) -> tuple[Tensor, Tensor] | None:
        """slope = weight / sqrt(running_var + eps) + eta; None while LayerNorm has a share."""
        if self.steps and self.steps_left > 0:
            return None
        slope, offset = self.running_line()
        weight, bias = self.on_host(self.weight, 1.0), self.on_host(self.bias)
        return weight * slope + self.on_host(self.eta), weight * offset + bias

    def output_affine(self) -> tuple[Tensor, Tensor]:
        """(1, 0): normalized is the output."""
        return self.on_host(None, 1.0), self.on_host(None, 0.0)

    def match_affine(self, weight: Tensor, bias: Tensor) -> None:
        """weight and bias in both branches."""
        super().match_affine(weight, bias)
        with torch.no_grad():
            for own, given in ((self.layer_weight, weight), (self.layer_bias, bias)):
                if own is not None:
                    own.copy_(given)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, warmup={self.warmup}, decay_steps={self.steps}"

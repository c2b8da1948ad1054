"""Norms that are not of this project: what the user of the zoo writes to add one."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probe.norms.base import ElementwiseNorm


class Softsign(ElementwiseNorm):
    """weight * softsign(sharpness * x) + bias, softsign(u) = u / (1 + |u|)."""

    families: ClassVar = ("softsign",)

    def __init__(self, channels: int, *, device: Any = None, dtype: Any = None, **common: Any):
        super().__init__(channels, device=device, dtype=dtype, **common)
        self.sharpness = nn.Parameter(torch.full((1,), 0.5, device=device, dtype=dtype))
        self.reset_parameters()

    def init_from_curve(
        self, family: str, *, alpha: float, shift: float, weight: Tensor, bias: Tensor
    ) -> None:
        self.assign(sharpness=alpha, weight=weight, bias=bias)

    def normalized(self, x: Tensor) -> Tensor:
        return nn.functional.softsign(self.sharpness * x)


class Ramp(Softsign):
    """A curve whose fits always have a shift."""

    families: ClassVar = ("tanh_shift",)

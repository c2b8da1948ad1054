"""What a norm module holds, read from the attributes that torch and the libraries around it use.

The defaults of a NormType; a type whose modules name things otherwise brings its own functions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Affine = tuple[Tensor, Tensor]  # two (C,) vectors, float64 on the host


def channels(module: nn.Module) -> int:
    """The size of what the module normalizes over or applies its affine on; 0 where it is not
    known.
    """
    for name in ("num_features", "num_channels"):
        if isinstance(value := getattr(module, name, None), int):
            return value
    if (shape := getattr(module, "normalized_shape", None)) is not None:
        return int(torch.Size(shape).numel())
    weight = getattr(module, "weight", None)
    return int(weight.numel()) if isinstance(weight, Tensor) else 0


def eps(module: nn.Module) -> float | None:
    """The module's eps; None where it has none."""
    for name in ("eps", "variance_epsilon", "epsilon"):
        value = getattr(module, name, None)
        if isinstance(value, float):
            return value
    # torch's RMSNorm takes eps=None as the machine epsilon of the input
    return torch.finfo(torch.float32).eps if isinstance(module, nn.RMSNorm) else None


def output_affine(module: nn.Module, channels: int) -> Affine:
    """w and b (C,) of output = w * z + b; ones and zeros where the module has none."""

    def read(name: str, missing: float) -> Tensor:
        value = getattr(module, name, None)
        if not isinstance(value, Tensor):
            return torch.full((channels,), missing, dtype=torch.float64)
        return value.detach().to("cpu", torch.float64).reshape(-1).expand(channels)

    return read("weight", 1.0), read("bias", 0.0)


def eval_affine(module: Any) -> Affine | None:
    """(scale, shift) (C,) of y = scale * x + shift from running statistics, None where there are
    none: scale = w / sqrt(var + eps), shift = b - mean * scale.
    """
    mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    if not isinstance(mean, Tensor) or not isinstance(var, Tensor):
        return None
    weight, bias = output_affine(module, len(mean))
    scale = weight * torch.rsqrt(var.to("cpu", torch.float64) + (eps(module) or 0.0))
    return scale, bias - mean.to("cpu", torch.float64) * scale

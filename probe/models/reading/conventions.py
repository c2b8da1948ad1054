"""What a norm module holds, read from the attributes that torch and the libraries around it use.

The defaults of a NormType; a type whose modules name things otherwise brings its own functions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Affine = tuple[Tensor, Tensor]  # two (C,) vectors, float64 on the host


_WEIGHTS = ("weight", "gamma", "\N{GREEK SMALL LETTER GAMMA}")
_BIASES = ("bias", "beta", "\N{GREEK SMALL LETTER BETA}")
_ALPHAS = ("alpha", "\N{GREEK SMALL LETTER ALPHA}")  # the listing in the paper has the letter
_SHIFTS = ("shift", "s")

Names = tuple[str | None, str | None]  # of the attributes that hold two values; None: there is none


def affine_names(module: nn.Module) -> Names:
    """The attributes that hold w and b, by the names in use."""
    return _first(module, _WEIGHTS), _first(module, _BIASES)


def curve_names(module: nn.Module) -> Names:
    """The attributes that hold alpha and shift of a dynamic curve f(alpha x + shift)."""
    return _first(module, _ALPHAS), _first(module, _SHIFTS)


def _first(module: nn.Module, names: tuple[str, ...]) -> str | None:
    """The first that the module has, unless it is there without a value."""
    name = next((name for name in names if hasattr(module, name)), None)
    return name if name and isinstance(getattr(module, name), Tensor) else None


def normalized_shape(module: nn.Module) -> tuple[int, ...]:
    """The axes that the weight lies along, where the module says so; else an empty tuple."""
    shape = getattr(module, "normalized_shape", ())
    return (shape,) if isinstance(shape, int) else tuple(shape)


def channels(module: nn.Module, names: Names | None = None) -> int:
    """The size of what the module normalizes over or applies its affine on; 0 where it is not
    known. names: see `output_affine`.
    """
    for name in ("num_features", "num_channels"):
        if isinstance(value := getattr(module, name, None), int):
            return value
    if shape := normalized_shape(module):
        return int(torch.Size(shape).numel())
    names = affine_names(module) if names is None else names
    return max((int(getattr(module, name).numel()) for name in names if name), default=0)


def eps(module: nn.Module) -> float | None:
    """The module's eps; None where it has none."""
    for name in ("eps", "variance_epsilon", "epsilon"):
        value = getattr(module, name, None)
        if isinstance(value, float):
            return value
    if "FrozenBatchNorm" in type(module).__name__:
        return 1e-5  # the classes of the DETR family write it out
    # torch's RMSNorm takes eps=None as the machine epsilon of the input
    return torch.finfo(torch.float32).eps if isinstance(module, nn.RMSNorm) else None


def output_affine(
    module: nn.Module, channels: int, names: Names | None = None, offset: float = 0.0
) -> Affine:
    """w and b (C,) of output = w * z + b; ones and zeros where the module has none.

    names: of their attributes; None: those in use. offset: what is added to the stored w.
    """

    def read(name: str | None, missing: float) -> Tensor:
        if name is None:
            return torch.full((channels,), missing, dtype=torch.float64)
        value = getattr(module, name)
        return value.detach().to("cpu", torch.float64).reshape(-1).expand(channels)

    weight, bias = affine_names(module) if names is None else names
    return read(weight, 1.0 - offset) + offset, read(bias, 0.0)


def eval_affine(module: Any, names: Names | None = None, offset: float = 0.0) -> Affine | None:
    """(scale, shift) (C,) of y = scale * x + shift from running statistics, None where there are
    none: scale = w / sqrt(var + eps), shift = b - mean * scale.
    """
    mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    if not isinstance(mean, Tensor) or not isinstance(var, Tensor):
        return None
    weight, bias = output_affine(module, len(mean), names, offset)
    scale = weight * torch.rsqrt(var.to("cpu", torch.float64) + (eps(module) or 0.0))
    return scale, bias - mean.to("cpu", torch.float64) * scale

"""A foreign normalization layer on random numbers: is its output w * z + b with the z of a type?

A copy of the module with random weights runs in float64 on the host. Its output is compared with
the formula of a type, with the stored weight as w and with 1 + the stored weight; where the
parameters have other names than usual, with any two of them as w and b.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn

from probe.models.reading import conventions
from probe.models.reading.conventions import Names
from probe.models.reading.formulas import Formula
from probe.models.reading.lone import run, twin
from probe.models.reading.norm_types import NormType
from probe.stats.observed import GivenNorm, TokenNorm

EXACT = 1e-4  # relative error below which a formula is confirmed: classes may compute in float32
OFFSETS = (0.0, 1.0)


@dataclass(frozen=True)
class Trial:
    """A type that a module was tried with: `offset` is what is added to the stored weight, `error`
    the largest |w z + b - output|, relative to the largest |output| or 1.
    """

    norm_type: NormType
    names: Names
    offset: float
    error: float

    @property
    def confirms(self) -> bool:
        return self.error < EXACT


def try_type(module: nn.Module, norm_type: NormType, names: Names) -> Trial | None:
    """The module tried with one type; None where it runs on no input that such a layer takes.
    names: of w and b, those that count where the output confirms no others.
    """
    with torch.device("cpu"):  # also where modules are being made on another device
        lone = twin(module, _random_state(module))
        for x in _inputs(_channels(module), norm_type.channels_last):
            compared = _values(lone, norm_type, x)
            if compared is not None:
                return _best_names(lone, norm_type, names, *compared)
    return None


def _best_names(lone: nn.Module, norm_type: NormType, usual: Names, z: Tensor, y: Tensor) -> Trial:
    """The first names that the output confirms, else the usual ones."""
    first = _best_offset(lone, norm_type, usual, z, y)
    if first.confirms:
        return first
    others = permutations((*_vectors(lone), None, None), 2)
    trials = (_best_offset(lone, norm_type, names, z, y) for names in sorted(set(others), key=str))
    return next((trial for trial in trials if trial.confirms), first)


def _values(lone: nn.Module, norm_type: NormType, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """z of the type and what w z + b should be, both laid out as x."""
    try:
        y, z = run(lone, x.clone()), written_out(norm_type.formula(lone, x), x, norm_type)
    except Exception:  # whatever a foreign class raises: it does not take such an input
        return None
    if not isinstance(y, Tensor) or y.shape != x.shape or z.shape != x.shape:
        return None
    return z, norm_type.before_more(lone, x, y) if norm_type.before_more is not None else y


def _best_offset(lone: nn.Module, norm_type: NormType, names: Names, z: Tensor, y: Tensor) -> Trial:
    errors = {offset: _error(lone, names, offset, z, y, norm_type) for offset in OFFSETS}
    offset = min(OFFSETS, key=lambda offset: errors[offset]) if names[0] else 0.0
    if errors[offset] >= EXACT:  # neither is right, so the weight is what it says
        offset = 0.0
    return Trial(norm_type, names, offset, errors[offset])


def _error(
    lone: Any, names: Names, offset: float, z: Tensor, y: Tensor, norm_type: NormType
) -> float:
    axis = z.ndim - 1 if norm_type.channels_last else 1
    shape = [-1 if i == axis else 1 for i in range(z.ndim)]
    affine = conventions.output_affine(lone, z.shape[axis], names, offset)
    weight, bias = (value.reshape(shape) for value in affine)
    error = float((weight * z + bias - y).abs().max() / y.abs().max().clamp(min=1.0))
    return math.inf if math.isnan(error) else error


def written_out(norm: Formula, x: Tensor, norm_type: NormType) -> Tensor:
    """The z that a formula stands for, laid out as x."""
    if isinstance(norm, GivenNorm):
        return norm.z.reshape(x.shape)
    if isinstance(norm, TokenNorm):
        axis = -1 if norm_type.channels_last else 1
        x = x - x.mean(axis, keepdim=True) if norm.centered else x
        return x * torch.rsqrt(x.square().mean(axis, keepdim=True) + norm.eps)
    inner = (1,) * (x.ndim - 2)
    mean, scale = (t.reshape(*t.shape, *inner) for t in (norm.mean, norm.scale))
    return (x - mean) * scale


def _channels(module: nn.Module) -> int:
    """The number of channels, or any where the module has no vector of its own."""
    return max([conventions.channels(module), *_vectors(module).values()]) or 8


def _vectors(module: nn.Module) -> dict[str, int]:
    """The sizes of the module's own parameters that may be w or b, by name."""
    own = module.named_parameters(recurse=False)
    return {name: value.numel() for name, value in own if max(value.shape, default=1) > 1}


def _random_state(module: nn.Module) -> dict[str, Tensor]:
    """Random float64 values for every floating tensor of the module; variances are positive."""
    rng = torch.Generator().manual_seed(0)
    own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    values: dict[str, Tensor] = {}
    for name, value in own:
        if value.is_floating_point():
            draw = torch.rand(value.shape, generator=rng, dtype=torch.float64)
            values[name] = draw + 0.5 if "var" in name or "std" in name else 2 * draw - 0.8
    return values


def _inputs(channels: int, channels_last: bool) -> list[Tensor]:
    """Random inputs in the layouts that such a layer may take, the likelier one first."""
    rng = torch.Generator().manual_seed(1)
    # other sizes than the channels, or a layer on the wrong axis would run without an error
    sizes = [size for size in (5, 7, 3) if size != channels]
    shapes = (
        [(2, sizes[0], channels), (2, *sizes[:2], channels)]
        if channels_last
        else [(2, channels, *sizes[:2]), (2, channels, sizes[0])]
    )
    return [2 * torch.randn(s, generator=rng, dtype=torch.float64) + 0.7 for s in shapes]

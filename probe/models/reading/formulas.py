"""z of each kind of normalization layer, from the module and the input of one call.

A formula is given an input laid out (B, ..., C), or (B, C, ...) where the channels are not last. It
answers with statistics where they say it all (`TokenNorm`, `PlaneNorm`), since the kernels then
compute z on the way and no second tensor is made; else with z itself (`GivenNorm`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from probe.models.reading import conventions
from probe.norms import LayerNorm, RMSNorm
from probe.norms.base import wide
from probe.stats.observed import GivenNorm, PlaneNorm, TokenNorm

Formula = TokenNorm | PlaneNorm | GivenNorm

_TINY = 1e-30


def uses_running_statistics(module: Any) -> bool:
    """Does the module compute with running statistics now? Frozen classes always do."""
    is_tracked = getattr(module, "running_mean", None) is not None
    return is_tracked and ("Frozen" in type(module).__name__ or not module.training)


def running_norm(module: Any, _: Tensor) -> Formula:
    scale = torch.rsqrt(module.running_var.double() + (conventions.eps(module) or 0.0))
    return PlaneNorm(module.running_mean.float()[None], scale.float()[None], fixed=True)


def batch_norm(module: Any, x: Tensor) -> Formula:
    if uses_running_statistics(module):
        return running_norm(module, x)
    var, mean = torch.var_mean(x.double(), dim=[0, *range(2, x.ndim)], correction=0)
    return PlaneNorm(mean.float()[None], torch.rsqrt(var + module.eps).float()[None], fixed=False)


def instance_norm(module: Any, x: Tensor) -> Formula:
    if uses_running_statistics(module):
        return running_norm(module, x)
    var, mean = torch.var_mean(x.double().flatten(2), dim=2, correction=0)
    return PlaneNorm(mean.float(), torch.rsqrt(var + module.eps).float(), fixed=False)


def group_norm(module: Any, x: Tensor) -> Formula:
    grouped = x.double().reshape(len(x), module.num_groups, -1)
    var, mean = torch.var_mean(grouped, dim=2, correction=0)
    scale, group_size = torch.rsqrt(var + module.eps), x.shape[1] // module.num_groups
    mean, scale = (t.float().repeat_interleave(group_size, dim=1) for t in (mean, scale))
    return PlaneNorm(mean, scale, fixed=False)


def token_norm(*, centered: bool) -> Callable[[nn.Module, Tensor], Formula]:
    """LayerNorm, or RMSNorm if not centered."""

    def norm(module: nn.Module, x: Tensor) -> Formula:
        eps = conventions.eps(module)
        if isinstance(module, nn.RMSNorm) and module.eps is None:
            eps = torch.finfo(x.dtype).eps
        return TokenNorm(eps or 0.0, centered)

    return norm


def simple_norm(module: Any, x: Tensor, axis: int = -1) -> Formula:
    """timm's SimpleNorm: x over the unbiased standard deviation of the token, the mean is not
    subtracted. axis: of the channels.
    """
    x, eps = wide(x), conventions.eps(module) or 0.0
    return GivenNorm(x * torch.rsqrt(x.var(dim=axis, keepdim=True) + eps))


def dynamic_curve(curve: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Tensor], Formula]:
    """z = curve(alpha x + shift), of the modules that hold alpha, and shift or none."""

    def norm(module: nn.Module, x: Tensor) -> Formula:
        alpha, shift = conventions.curve_names(module)
        if alpha is None:  # only where a user said that the class is such a curve
            raise AttributeError("no attribute 'alpha'", name="alpha", obj=module)
        scaled = getattr(module, alpha) * wide(x)
        return GivenNorm(curve(scaled + getattr(module, shift) if shift else scaled))

    return norm


def is_line(module: Any) -> bool:
    """Is a norm of the zoo a line per channel now?"""
    return not module.training and module.eval_line() is not None


def zoo_norm(module: Any, x: Tensor) -> Formula:
    """z of a norm of the zoo: a line per channel where it is one, statistics per token for LN and
    RMS, else what it says itself.
    """
    if isinstance(module, LayerNorm | RMSNorm):
        return TokenNorm(module.eps, centered=isinstance(module, LayerNorm))
    if is_line(module):
        slope, offset = module.eval_line()
        # (x - mean) * slope; where the slope is 0 a tiny one gives the offset all the same
        slope = torch.where(slope.abs() < _TINY, _TINY, slope)
        mean, scale = (values.float().to(x.device)[None] for values in (-offset / slope, slope))
        return PlaneNorm(mean, scale, fixed=True)
    if x.dtype in (torch.float16, torch.bfloat16):
        module, x = copy.deepcopy(module).float(), x.float()
    return GivenNorm(module.normalized(x))

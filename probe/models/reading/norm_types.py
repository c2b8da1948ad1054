"""What kinds of normalization layers there are: which modules belong to each, where its channels
are, and what its z is.

The type of the module decides, never the rank of its input: a LayerNorm over NHWC tensors is
channels-last, a LayerNorm2d over NCHW tensors is not. The zoo of `probe.norms` stands first, each
class under its registry name; after it torch's own classes and those of libraries that are not
imported here.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from probe.norms import LayerNorm, Norm, RMSNorm
from probe.norms.registry import NORMS, norm_name
from probe.stats.observed import GivenNorm, PlaneNorm, TokenNorm

Formula = TokenNorm | PlaneNorm | GivenNorm


@dataclass(frozen=True)
class NormType:
    """A kind of normalization layer.

    matches: is this module one of it?  norm: z of an input laid out (B, ..., C) if channels_last,
    else (B, C, ...).
    """

    kind: str
    matches: Callable[[nn.Module], bool]
    norm: Callable[[Any, Tensor], Formula]
    channels_last: bool = True
    affine: Callable[[nn.Module], bool] = lambda module: False


def eps_of(module: nn.Module) -> float | None:
    """The module's eps, under the names in use."""
    for name in ("eps", "variance_epsilon", "epsilon"):
        value = getattr(module, name, None)
        if isinstance(value, float):
            return value
    # torch's RMSNorm takes eps=None as the machine epsilon of the input
    return torch.finfo(torch.float32).eps if isinstance(module, nn.RMSNorm) else None


def _uses_running_statistics(module: Any) -> bool:
    tracked = getattr(module, "running_mean", None) is not None
    return tracked and not (isinstance(module, _BatchNorm | _InstanceNorm) and module.training)


def _running(module: Any) -> PlaneNorm:
    scale = torch.rsqrt(module.running_var.double() + module.eps)
    return PlaneNorm(module.running_mean.float()[None], scale.float()[None], fixed=True)


def _batch_norm(module: Any, x: Tensor) -> Formula:
    if _uses_running_statistics(module):
        return _running(module)
    var, mean = torch.var_mean(x.double(), dim=[0, *range(2, x.ndim)], correction=0)
    return PlaneNorm(mean.float()[None], torch.rsqrt(var + module.eps).float()[None], fixed=False)


def _instance_norm(module: Any, x: Tensor) -> Formula:
    if _uses_running_statistics(module):
        return _running(module)
    var, mean = torch.var_mean(x.double().flatten(2), dim=2, correction=0)
    return PlaneNorm(mean.float(), torch.rsqrt(var + module.eps).float(), fixed=False)


def _group_norm(module: Any, x: Tensor) -> Formula:
    grouped = x.double().reshape(len(x), module.num_groups, -1)
    var, mean = torch.var_mean(grouped, dim=2, correction=0)
    each = x.shape[1] // module.num_groups
    mean, scale = (
        t.float().repeat_interleave(each, dim=1) for t in (mean, torch.rsqrt(var + module.eps))
    )
    return PlaneNorm(mean, scale, fixed=False)


def _token_norm(centered: bool) -> Callable[[nn.Module, Tensor], Formula]:
    def norm(module: nn.Module, x: Tensor) -> Formula:
        eps = eps_of(module)
        if isinstance(module, nn.RMSNorm) and module.eps is None:
            eps = torch.finfo(x.dtype).eps
        return TokenNorm(eps or 0.0, centered)

    return norm


def _simple_norm(module: Any, x: Tensor) -> Formula:
    """timm's SimpleNorm: x over the unbiased standard deviation of the token, the mean is not
    subtracted.
    """
    axis = 1 if type(module).__name__.startswith("SimpleNorm2d") else -1
    x = x.float()
    return GivenNorm(x * torch.rsqrt(x.var(dim=axis, keepdim=True) + module.eps))


def _on_planes(module: nn.Module) -> bool:
    """A token norm over axis 1 of NCHW tensors: by the class name (timm, torchvision) or by its
    flag (transformers).
    """
    return "2d" in type(module).__name__ or getattr(module, "data_format", None) == "channels_first"


def _named(pattern: str) -> Callable[[nn.Module], bool]:
    """Classes of libraries that are not imported here, known by name; they must hold a weight
    vector or none at all.
    """
    compiled = re.compile(pattern)

    def matches(module: nn.Module) -> bool:
        weight = getattr(module, "weight", None)
        return bool(compiled.fullmatch(type(module).__name__)) and (
            weight is None or (isinstance(weight, Tensor) and weight.ndim == 1)
        )

    return matches


_is_rms = _named(r"\w*(RMSNorm|RmsNorm|Rmsnorm)(Act)?(2d)?(Fp32)?")
_is_simple = _named(r"SimpleNorm(2d)?(Fp32)?")
_is_frozen = _named(r"FrozenBatchNorm(Act)?2d")
_is_dynamic_tanh = _named(r"DyT|DynamicTanh")


def _is_dyt(module: nn.Module, planes: bool = False) -> bool:
    """One of the published classes by name (DynamicTanh, DyT), which hold alpha."""
    if not (_is_dynamic_tanh(module) and isinstance(getattr(module, "alpha", None), Tensor)):
        return False
    # the authors' class defaults to channels-last and says so; the ResNet-50 one without the flag
    # works on NCHW
    return getattr(module, "channels_last", False) is not planes


def _dyt(module: Any, x: Tensor) -> Formula:
    return GivenNorm(torch.tanh(module.alpha * x.float()))


def _is_zoo(module: nn.Module, name: str) -> bool:
    return isinstance(module, Norm) and norm_name(module) == name


def _is_line(module: Any) -> bool:
    return not module.training and module.eval_line() is not None


def _zoo(module: Any, x: Tensor) -> Formula:
    """z of a norm of the zoo: a line per channel where it is one, statistics per token for LN and
    RMS, else what it says itself.
    """
    if isinstance(module, LayerNorm | RMSNorm):
        return TokenNorm(module.eps, centered=isinstance(module, LayerNorm))
    if _is_line(module):
        slope, offset = module.eval_line()
        # (x - mean) * slope; where the slope is 0 a tiny one gives the offset all the same
        slope = torch.where(slope.abs() < _TINY, _TINY, slope)
        mean, scale = (values.float().to(x.device)[None] for values in (-offset / slope, slope))
        return PlaneNorm(mean, scale, fixed=True)
    if x.dtype in (torch.float16, torch.bfloat16):
        module, x = copy.deepcopy(module).float(), x.float()
    return GivenNorm(module.normalized(x))


_TINY = 1e-30


def _either(*classes: type[nn.Module]) -> Callable[[nn.Module], bool]:
    return lambda module: isinstance(module, classes)


def _planes_of(matches: Callable[[nn.Module], bool]) -> Callable[[nn.Module], bool]:
    return lambda module: matches(module) and _on_planes(module)


# The first that matches counts, so the form on planes stands before the plain one.
NORM_TYPES: tuple[NormType, ...] = (
    *(
        NormType(
            name,
            partial(_is_zoo, name=name),
            _zoo,
            channels_last=not name.endswith("_2d"),
            affine=_is_line,
        )
        for name in NORMS
    ),
    NormType("dyt", _is_dyt, _dyt),
    NormType("dyt_2d", partial(_is_dyt, planes=True), _dyt, channels_last=False),
    NormType(
        "batch_norm",
        _either(_BatchNorm),
        _batch_norm,
        channels_last=False,
        affine=_uses_running_statistics,
    ),
    NormType(
        "batch_norm",
        _is_frozen,
        lambda m, x: _running(m),
        channels_last=False,
        affine=_uses_running_statistics,
    ),
    NormType(
        "instance_norm",
        _either(_InstanceNorm),
        _instance_norm,
        channels_last=False,
        affine=_uses_running_statistics,
    ),
    NormType("group_norm", _either(nn.GroupNorm), _group_norm, channels_last=False),
    NormType(
        "layer_norm_2d",
        _planes_of(_either(nn.LayerNorm)),
        _token_norm(centered=True),
        channels_last=False,
    ),
    NormType("layer_norm", _either(nn.LayerNorm), _token_norm(centered=True)),
    NormType("rms_norm_2d", _planes_of(_is_rms), _token_norm(centered=False), channels_last=False),
    NormType(
        "rms_norm", lambda m: isinstance(m, nn.RMSNorm) or _is_rms(m), _token_norm(centered=False)
    ),
    NormType("simple_norm_2d", _planes_of(_is_simple), _simple_norm, channels_last=False),
    NormType("simple_norm", _is_simple, _simple_norm),
)


def norm_type(module: nn.Module) -> NormType | None:
    """What kind of normalization layer `module` is; None if it is none."""
    return next((kind for kind in NORM_TYPES if kind.matches(module)), None)

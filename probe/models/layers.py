"""Which modules are normalization layers, and what each computes.

A `NormType` says for a class of modules: its kind, where its channels are, and its z. The type of the module decides, never
the rank of its input: a LayerNorm over NHWC tensors is channels-last, a LayerNorm2d over NCHW tensors is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from probe.errors import UsageError, nearest
from probe.norms import Derf, DyT
from probe.records import Layer
from probe.stats.observed import GivenNorm, PlaneNorm, TokenNorm

Norm = TokenNorm | PlaneNorm | GivenNorm


@dataclass(frozen=True)
class NormType:
    """A kind of normalization layer.

    matches: is this module one of it?  norm: z of an input laid out (B, ..., C) if channels_last, else (B, C, ...).
    """

    kind: str
    matches: Callable[[nn.Module], bool]
    norm: Callable[[Any, Tensor], Norm]
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


def channels_of(module: nn.Module) -> int:
    """Number of channels: the size of what the module normalizes over or applies its affine on."""
    for name in ("num_features", "num_channels"):
        if isinstance(value := getattr(module, name, None), int):
            return value
    if (shape := getattr(module, "normalized_shape", None)) is not None:
        return int(torch.Size(shape).numel())
    weight = getattr(module, "weight", None)
    return int(weight.numel()) if isinstance(weight, Tensor) else 0


def affine_of(module: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """Weight and bias (C,) float64 on the host; ones and zeros where the module has none."""

    def read(name: str, missing: float) -> Tensor:
        value = getattr(module, name, None)
        if not isinstance(value, Tensor):
            return torch.full((channels,), missing, dtype=torch.float64)
        return value.detach().to("cpu", torch.float64).reshape(-1).expand(channels)

    return read("weight", 1.0), read("bias", 0.0)


def _uses_running_statistics(module: Any) -> bool:
    tracked = getattr(module, "running_mean", None) is not None
    return tracked and not (isinstance(module, _BatchNorm | _InstanceNorm) and module.training)


def _running(module: Any) -> PlaneNorm:
    scale = torch.rsqrt(module.running_var.double() + module.eps)
    return PlaneNorm(module.running_mean.float()[None], scale.float()[None], fixed=True)


def _batch_norm(module: Any, x: Tensor) -> Norm:
    if _uses_running_statistics(module):
        return _running(module)
    var, mean = torch.var_mean(x.double(), dim=[0, *range(2, x.ndim)], correction=0)
    return PlaneNorm(mean.float()[None], torch.rsqrt(var + module.eps).float()[None], fixed=False)


def _instance_norm(module: Any, x: Tensor) -> Norm:
    if _uses_running_statistics(module):
        return _running(module)
    var, mean = torch.var_mean(x.double().flatten(2), dim=2, correction=0)
    return PlaneNorm(mean.float(), torch.rsqrt(var + module.eps).float(), fixed=False)


def _group_norm(module: Any, x: Tensor) -> Norm:
    grouped = x.double().reshape(len(x), module.num_groups, -1)
    var, mean = torch.var_mean(grouped, dim=2, correction=0)
    each = x.shape[1] // module.num_groups
    mean, scale = (t.float().repeat_interleave(each, dim=1) for t in (mean, torch.rsqrt(var + module.eps)))
    return PlaneNorm(mean, scale, fixed=False)


def _token_norm(centered: bool) -> Callable[[nn.Module, Tensor], Norm]:
    def norm(module: nn.Module, x: Tensor) -> Norm:
        eps = eps_of(module)
        if isinstance(module, nn.RMSNorm) and module.eps is None:
            eps = torch.finfo(x.dtype).eps
        return TokenNorm(eps or 0.0, centered)

    return norm


def _simple_norm(module: Any, x: Tensor) -> Norm:
    """timm's SimpleNorm: x over the unbiased standard deviation of the token, the mean is not subtracted."""
    axis = 1 if type(module).__name__.startswith("SimpleNorm2d") else -1
    x = x.float()
    return GivenNorm(x * torch.rsqrt(x.var(dim=axis, keepdim=True) + module.eps))


def _on_planes(module: nn.Module) -> bool:
    """A token norm over axis 1 of NCHW tensors: by the class name (timm, torchvision) or by its flag (transformers)."""
    return "2d" in type(module).__name__ or getattr(module, "data_format", None) == "channels_first"


def _named(pattern: str) -> Callable[[nn.Module], bool]:
    """Classes of libraries that are not imported here, known by name; they must hold a weight vector or none at all."""
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
    """Ours, or one of the published classes by name (DynamicTanh, DyT), which hold alpha under the same name."""
    if not (isinstance(module, DyT) or (_is_dynamic_tanh(module) and isinstance(getattr(module, "alpha", None), Tensor))):
        return False
    # the authors' class defaults to channels-last and says so; the ResNet-50 one without the flag works on NCHW
    return getattr(module, "channels_last", False) is not planes


def _is_derf(module: nn.Module, planes: bool = False) -> bool:
    return isinstance(module, Derf) and module.channels_last is not planes


def _dyt(module: Any, x: Tensor) -> Norm:
    return GivenNorm(torch.tanh(module.alpha * x.float()))


def _derf(module: Any, x: Tensor) -> Norm:
    return GivenNorm(torch.erf(module.alpha * x.float() + module.shift))


def _either(*classes: type[nn.Module]) -> Callable[[nn.Module], bool]:
    return lambda module: isinstance(module, classes)


def _planes_of(matches: Callable[[nn.Module], bool]) -> Callable[[nn.Module], bool]:
    return lambda module: matches(module) and _on_planes(module)


# The first that matches counts, so the form on planes stands before the plain one.
NORM_TYPES: tuple[NormType, ...] = (
    NormType("dyt", _is_dyt, _dyt),
    NormType("dyt_2d", partial(_is_dyt, planes=True), _dyt, channels_last=False),
    NormType("derf", _is_derf, _derf),
    NormType("derf_2d", partial(_is_derf, planes=True), _derf, channels_last=False),
    NormType("batch_norm", _either(_BatchNorm), _batch_norm, channels_last=False, affine=_uses_running_statistics),
    NormType("batch_norm", _is_frozen, lambda m, x: _running(m), channels_last=False, affine=_uses_running_statistics),
    NormType("instance_norm", _either(_InstanceNorm), _instance_norm, channels_last=False, affine=_uses_running_statistics),
    NormType("group_norm", _either(nn.GroupNorm), _group_norm, channels_last=False),
    NormType("layer_norm_2d", _planes_of(_either(nn.LayerNorm)), _token_norm(centered=True), channels_last=False),
    NormType("layer_norm", _either(nn.LayerNorm), _token_norm(centered=True)),
    NormType("rms_norm_2d", _planes_of(_is_rms), _token_norm(centered=False), channels_last=False),
    NormType("rms_norm", lambda m: isinstance(m, nn.RMSNorm) or _is_rms(m), _token_norm(centered=False)),
    NormType("simple_norm_2d", _planes_of(_is_simple), _simple_norm, channels_last=False),
    NormType("simple_norm", _is_simple, _simple_norm),
)


def norm_type(module: nn.Module) -> NormType | None:
    """What kind of normalization layer `module` is; None if it is none."""
    return next((kind for kind in NORM_TYPES if kind.matches(module)), None)


def norm_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module, NormType]]:
    """(path, module, type) of every normalization layer, each shared module once, in module order."""
    for name, child in module.named_modules():
        kind = norm_type(child)
        if kind is not None:
            yield name, child, kind


def unwrapped(module: nn.Module) -> nn.Module:
    """The module that hooks work on: the original behind torch.compile(model) and data-parallel wrappers.

    Raises UsageError where the original cannot be reached: modules compiled in place or scripted never call Python hooks.
    """
    while isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
        module = inner
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.module
    for name, child in module.named_modules():
        where = f" (submodule {name!r})" if name else ""
        if isinstance(child, torch.jit.ScriptModule):
            raise UsageError(
                f"this model is a TorchScript module{where}: hooks never see its layers; give the nn.Module it was made from"
            )
        if _compiled_in_place(child):
            raise UsageError(
                f"this model was compiled in place{where}: a compiled call skips hooks added later; "
                "give the model as it was before compiling"
            )
    return module


def _compiled_in_place(module: nn.Module) -> bool:
    compiled = getattr(module, "_compiled_call_impl", None) is not None
    return compiled or isinstance(getattr(module, "_orig_mod", None), nn.Module)


def list_norm_layers(module: nn.Module, layers: str = "*") -> list[Layer]:
    """Every normalization layer of `module` in module order.

    `layers` is a glob over module paths, or several joined by commas (`blocks.*.norm1,norm`).
    Raises UsageError if the module has no normalization layer, or none that matches.
    """
    module = unwrapped(module)
    found = [
        Layer(name, name, depth, kind.kind, channels_of(child), eps_of(child), kind.affine(child))
        for depth, (name, child, kind) in enumerate(norm_modules(module))
    ]
    if not found:
        raise UsageError(
            f"{type(module).__name__} has no normalization layer that probe knows (LayerNorm, BatchNorm, GroupNorm, RMSNorm, ...)"
        )
    chosen = [layer for layer in found if matches(layer.name, layers)]
    if not chosen:
        names = [layer.name for layer in found]
        close = nearest(layers, names) or ", ".join(names[:3])
        raise UsageError(
            f"--layers {layers!r} matches none of the {len(names)} normalization layers (such as {close}); "
            "globs like 'blocks.*' work"
        )
    return chosen


def matches(name: str, layers: str) -> bool:
    """Does a layer name match one of the comma-joined globs?"""
    return any(fnmatchcase(name, pattern.strip()) for pattern in layers.split(","))

"""Which modules of a model are normalization layers, and what they hold: name, kind, channels,
affine.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from probe.errors import UsageError, nearest
from probe.layer_names import Patterns, matches, split_patterns
from probe.models.reading.norm_types import NormType, eps_of, norm_type
from probe.norms import Norm
from probe.records import Layer


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
    """w and b (C,) of output = w * normalized + b, float64 on the host; ones and zeros where the
    module has none.
    """
    if isinstance(module, Norm):
        return module.output_affine()

    def read(name: str, missing: float) -> Tensor:
        value = getattr(module, name, None)
        if not isinstance(value, Tensor):
            return torch.full((channels,), missing, dtype=torch.float64)
        return value.detach().to("cpu", torch.float64).reshape(-1).expand(channels)

    return read("weight", 1.0), read("bias", 0.0)


def norm_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module, NormType]]:
    """(path, module, type) of every normalization layer, each shared module once, in module
    order.
    """
    for name, child in module.named_modules():
        kind = norm_type(child)
        if kind is not None:
            yield name, child, kind


def unwrapped(module: nn.Module) -> nn.Module:
    """The module that hooks work on: the original behind torch.compile(model) and data-parallel
    wrappers.

    Raises UsageError where the original cannot be reached: modules compiled in place or scripted
    never call Python hooks.
    """
    while isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
        module = inner
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.module
    for name, child in module.named_modules():
        where = f" (submodule {name!r})" if name else ""
        if isinstance(child, torch.jit.ScriptModule):
            raise UsageError(
                f"this model is a TorchScript module{where}: hooks never see its layers; give the "
                "nn.Module it was made from"
            )
        if _compiled_in_place(child):
            raise UsageError(
                f"this model was compiled in place{where}: a compiled call skips hooks added "
                "later; "
                "give the model as it was before compiling"
            )
    return module


def _compiled_in_place(module: nn.Module) -> bool:
    compiled = getattr(module, "_compiled_call_impl", None) is not None
    return compiled or isinstance(getattr(module, "_orig_mod", None), nn.Module)


def list_norm_layers(module: nn.Module, layers: Patterns = "*") -> list[Layer]:
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
            f"{type(module).__name__} has no normalization layer that probe knows (LayerNorm, "
            "BatchNorm, GroupNorm, RMSNorm, ...)"
        )
    chosen = [layer for layer in found if matches(layer.name, layers)]
    if not chosen:
        names = [layer.name for layer in found]
        given = ",".join(split_patterns(layers))
        close = nearest(given, names) or ", ".join(names[:3])
        raise UsageError(
            f"--layers {given!r} matches none of the {len(names)} normalization layers "
            f"(such as {close}); globs like 'blocks.*' work"
        )
    return chosen


def eval_affine(module: nn.Module) -> tuple[Tensor, Tensor] | None:
    """(scale, shift) (C,) float64 on the host if y = scale * x + shift at evaluation: w (x - mean)
    / sqrt(var + eps) + b.
    """
    if isinstance(module, Norm):
        return module.eval_affine()
    mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    if not isinstance(mean, Tensor) or not isinstance(var, Tensor):
        return None
    weight, bias = affine_of(module, len(mean))
    scale = weight * torch.rsqrt(var.to("cpu", torch.float64) + (eps_of(module) or 0.0))
    return scale, bias - mean.to("cpu", torch.float64) * scale

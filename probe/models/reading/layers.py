"""Which modules of a model are normalization layers, and what they hold: name, kind, channels,
affine.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from probe.errors import UsageError
from probe.layer_names import Patterns, select
from probe.models.reading import conventions
from probe.models.reading.conventions import Affine
from probe.models.reading.norm_types import NormType
from probe.models.reading.recognize import norm_type
from probe.records import Layer


def channels_of(module: nn.Module) -> int:
    """Number of channels: the size of what the module normalizes over or applies its affine on."""
    kind = norm_type(module)
    return kind.channels(module) if kind else conventions.channels(module)


def eps_of(module: nn.Module) -> float | None:
    """The module's eps; None where it has none."""
    kind = norm_type(module)
    return kind.eps(module) if kind else conventions.eps(module)


def affine_of(module: nn.Module, channels: int) -> Affine:
    """w and b (C,) of output = w * normalized + b, float64 on the host; ones and zeros where the
    module has none.
    """
    kind = norm_type(module)
    read = kind.output_affine if kind else conventions.output_affine
    return read(module, channels)


def eval_affine(module: nn.Module) -> Affine | None:
    """(scale, shift) (C,) float64 on the host if y = scale * x + shift at evaluation: w (x - mean)
    / sqrt(var + eps) + b; None where the layer is no such line.
    """
    kind = norm_type(module)
    return kind.eval_affine(module) if kind else conventions.eval_affine(module)


def own_alpha(module: nn.Module) -> float | None:
    """The alpha of a layer that is itself z = f(alpha x + shift), such as a DyT or a Derf; None for
    all other layers, and where it is not one number.
    """
    kind, (name, _) = norm_type(module), conventions.curve_names(module)
    if kind is None or not kind.has_alpha or name is None:
        return None
    alpha = getattr(module, name)
    return float(alpha.detach()) if alpha.numel() == 1 else None


def norm_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module, NormType]]:
    """(path, module, type) of every normalization layer, each shared module once, in module
    order.
    """
    for name, child in module.named_modules():
        try:
            kind = norm_type(child)
        except UsageError as error:  # of a registration
            raise UsageError(f"layer {name!r}: {error}") from error
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
                "later; give the model as it was before compiling"
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
    every = [
        _layer(name, depth, child, kind)
        for depth, (name, child, kind) in enumerate(norm_modules(module))
    ]
    if not every:
        raise UsageError(
            f"{type(module).__name__} has no normalization layer that probe knows (LayerNorm, "
            "BatchNorm, GroupNorm, RMSNorm, ...); of a class of your own: probe.register_norm"
        )
    chosen = set(select((layer.name for layer in every), layers, "normalization layers"))
    return [layer for layer in every if layer.name in chosen]


def _layer(name: str, depth: int, module: nn.Module, kind: NormType) -> Layer:
    channels, eps = kind.channels(module), kind.eps(module)
    return Layer(name, name, depth, kind.kind, channels, eps, kind.affine(module))

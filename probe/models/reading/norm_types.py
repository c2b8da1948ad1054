"""What kinds of normalization layers there are: which modules belong to each, where its channels
are, and what its z is.

The type of the module decides, never the rank of its input: a LayerNorm over NHWC tensors is
channels-last, a LayerNorm2d over NCHW tensors is not. The zoo of `probe.norms` stands first, each
class under its registry name; after it torch's own classes and those of libraries that are not
imported here.

To add a type, add one entry to `NORM_TYPES`; nothing else in the package lists the types, but for
those of `response_norms`, whose output is more than w z + b.

    NormType(
        "my_norm",                         # kind, as reports and tables call it
        lambda m: isinstance(m, MyNorm),   # or _named(r"MyNorm") for a library not imported here
        lambda m, x: GivenNorm(x / x.abs().amax(-1, keepdim=True)),  # z of an input
        channels_last=True,                # False: the channels are axis 1
        affine=lambda m: False,            # True where y = s x + t per channel
    )

That is all where the module names its parts as torch does: `weight` and `bias`, `eps`,
`num_features` or `normalized_shape`, `running_mean` and `running_var`. For other names there are
the fields `channels`, `eps`, `output_affine` and `eval_affine`, whose defaults are in
`conventions`. A formula longer than a line goes to `formulas`. A norm of the zoo needs no entry
here: it comes from its registry.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from probe.models.reading import conventions, formulas
from probe.models.reading.conventions import Affine, Names
from probe.models.reading.formulas import Formula
from probe.norms import Norm
from probe.norms.registry import NORMS, norm_name

Matcher = Callable[[nn.Module], bool]


@dataclass(frozen=True)
class NormType:
    """A kind of normalization layer; its fields say all that the package asks of a module.

    type_by_table(nn.LayerNorm(8)).kind  # "layer_norm"
    """

    kind: str
    matches: Matcher  # is this module one of it?
    # z of an input laid out (B, ..., C) if channels_last, else (B, C, ...)
    formula: Callable[[Any, Tensor], Formula]
    channels_last: bool = True
    affine: Matcher = lambda module: False  # is y = s x + t per channel now?
    # z = f(alpha x + shift): alpha and shift can be folded into what makes x
    has_alpha: bool = False
    channels: Callable[[Any], int] = conventions.channels
    eps: Callable[[Any], float | None] = conventions.eps
    # w, b of y = w z + b, from the module and its number of channels
    output_affine: Callable[[Any, int], Affine] = conventions.output_affine
    # s, t of y = s x + t at evaluation; None where the layer is no such line
    eval_affine: Callable[[Any], Affine | None] = conventions.eval_affine
    # what w z + b is equal to, from the module, its input and its output, where the module does
    # more than that; and then why no other layer can stand in its place
    before_more: Callable[[Any, Tensor, Tensor], Tensor] | None = None
    stays: str = ""

    def holding(self, names: Names, offset: float = 0.0) -> NormType:
        """The same type for a module with other names of w and b; offset: see `output_affine`."""
        affine = partial(conventions.output_affine, names=names, offset=offset)
        line = partial(conventions.eval_affine, names=names, offset=offset)
        channels = partial(conventions.channels, names=names)
        return replace(self, output_affine=affine, eval_affine=line, channels=channels)


def _one_of(*classes: type[nn.Module]) -> Matcher:
    return lambda module: isinstance(module, classes)


def _named(pattern: str) -> Matcher:
    """Classes of libraries that are not imported here, known by name; they must hold a weight
    vector or none at all.
    """
    compiled = re.compile(pattern)

    def matches(module: nn.Module) -> bool:
        weight = getattr(module, "weight", None)
        is_vector = isinstance(weight, Tensor) and weight.ndim == 1
        return bool(compiled.fullmatch(type(module).__name__)) and (weight is None or is_vector)

    return matches


def _on_planes(matches: Matcher) -> Matcher:
    """Those that work on axis 1 of NCHW tensors: by the class name (timm, torchvision) or by a flag
    (transformers).
    """

    def is_on_planes(module: nn.Module) -> bool:
        is_flagged = getattr(module, "data_format", None) == "channels_first"
        return "2d" in type(module).__name__ or is_flagged

    return lambda module: matches(module) and is_on_planes(module)


_is_layer_norm = _one_of(nn.LayerNorm)
_is_named_rms = _named(r"\w*(RMSNorm|RmsNorm|Rmsnorm)(Act)?(2d)?(Fp32)?")
_is_simple = _named(r"SimpleNorm(2d)?(Fp32)?")
_is_frozen = _named(r"\w*FrozenBatchNorm(Act)?2d")
_is_named_dyt = _named(r"(?i:dyt|dynamictanh)(2d)?")
_is_named_derf = _named(r"(?i:derf|dynamicerf)(2d)?")


def _is_rms(module: nn.Module) -> bool:
    return isinstance(module, nn.RMSNorm) or _is_named_rms(module)


def _is_curve(module: nn.Module, is_named: Matcher, planes: bool) -> bool:
    """One of the published classes by name (DynamicTanh, DyT, ...), which hold alpha."""
    if not (is_named(module) and conventions.curve_names(module)[0]):
        return False
    # the authors' class says its layout; of the others most are on tokens, and a trial tells
    return getattr(module, "channels_last", True) is not planes


def _is_of_zoo(module: nn.Module, name: str) -> bool:
    return isinstance(module, Norm) and norm_name(module) == name


def _zoo_type(name: str) -> NormType:
    return NormType(
        name,
        partial(_is_of_zoo, name=name),
        formulas.zoo_norm,
        channels_last=not name.endswith("_2d"),
        affine=formulas.is_line,
        has_alpha=name.removesuffix("_2d") in ("dyt", "derf"),
        output_affine=lambda module, _: module.output_affine(),
        eval_affine=lambda module: module.eval_affine(),
    )


_on_axis_1 = partial(NormType, channels_last=False)
# statistics of planes that may be running ones, with which the layer is a line per channel
_with_running = partial(_on_axis_1, affine=formulas.uses_running_statistics)
_centered, _uncentered = formulas.token_norm(centered=True), formulas.token_norm(centered=False)


def _dynamic_curve(name: str, is_named: Matcher, formula: Callable[..., Formula]) -> list[NormType]:
    """A curve of the zoo as the authors and others have it, on tokens and on planes."""
    of_layout = partial(_is_curve, is_named=is_named)
    return [
        NormType(name, partial(of_layout, planes=False), formula, has_alpha=True),
        _on_axis_1(f"{name}_2d", partial(of_layout, planes=True), formula, has_alpha=True),
    ]


# the first that matches counts, so the form on planes stands before the plain one
NORM_TYPES: tuple[NormType, ...] = (
    *map(_zoo_type, NORMS),
    *_dynamic_curve("dyt", _is_named_dyt, formulas.dynamic_curve(torch.tanh)),
    *_dynamic_curve("derf", _is_named_derf, formulas.dynamic_curve(torch.erf)),
    _with_running("batch_norm", _one_of(_BatchNorm), formulas.batch_norm),
    _with_running("batch_norm", _is_frozen, formulas.running_norm),
    _with_running("instance_norm", _one_of(_InstanceNorm), formulas.instance_norm),
    _on_axis_1("group_norm", _one_of(nn.GroupNorm), formulas.group_norm),
    _on_axis_1("layer_norm_2d", _on_planes(_is_layer_norm), _centered),
    NormType("layer_norm", _is_layer_norm, _centered),
    _on_axis_1("rms_norm_2d", _on_planes(_is_named_rms), _uncentered),
    NormType("rms_norm", _is_rms, _uncentered),
    _on_axis_1("simple_norm_2d", _on_planes(_is_simple), partial(formulas.simple_norm, axis=1)),
    NormType("simple_norm", _is_simple, formulas.simple_norm),
)


def type_by_table(module: nn.Module) -> NormType | None:
    """The first type that `module` belongs to by its class; None if there is none. What it is in
    the end says `recognize.norm_type`.
    """
    return next((kind for kind in NORM_TYPES if kind.matches(module)), None)

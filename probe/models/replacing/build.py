"""Build the norm that comes in place of one normalization layer: in the layer's layout, with the
start that a `ReplacementSpec` asks for.

Layouts: token norms (B, ..., C) get the norm `name`, norms on images (B, C, ...) get `name_2d`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from probe.curves import StandIn
from probe.errors import UsageError
from probe.models.reading.conventions import normalized_shape
from probe.models.reading.layers import channels_of, eps_of, eval_affine
from probe.models.reading.norm_types import NormType
from probe.models.reading.recognize import recognize
from probe.models.replacing.curve_norms import norm_label
from probe.models.replacing.initial_values import NotReplaced, init_from_curve, init_from_layer
from probe.models.replacing.spec import INITS, ReplacementSpec
from probe.norms.registry import NORMS, create_norm, norm_options

# eps means the same in them and in torch's
_AS_IN_TORCH = ("layer_norm", "rms_norm", "batch_norm", "instance_norm", "group_norm")


class NormAct(nn.Module):
    """act(drop(norm(x))): a norm in place of a norm+activation module, with that module's own drop
    and activation.
    """

    def __init__(self, norm: nn.Module, drop: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.norm, self.drop, self.act = norm, drop, act

    @property
    def weight(self) -> Any:
        """The norm's: timm initializes and reads it under this name."""
        return self.norm.weight

    @property
    def bias(self) -> Any:
        return self.norm.bias

    @property
    def num_features(self) -> Any:
        return self.norm.num_features

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(self.norm(x)))


def build(
    spec: ReplacementSpec, layer: str, old: nn.Module, kind: NormType, context: Mapping[str, Any]
) -> tuple[nn.Module, str, str]:
    """The module for `layer`, the name of its norm, and a remark. Raises NotReplaced with the
    reason why there is none.

    context: options that the model tells (grid, prefix_tokens), `like`: a tensor with the device
    and dtype of the model.
    """
    if kind.stays:
        raise NotReplaced(kind.stays)
    channels = _channels(old)
    norm, name = _in_layout(spec.norm, kind.channels_last)
    stand_in = spec.stand_in(layer, channels) if spec.init == "fitted" else None
    try:
        new = create_norm(norm, channels, **_options(spec, norm, old, kind, context))
    except (UsageError, TypeError) as error:
        raise NotReplaced(str(error)) from error
    with torch.no_grad():
        remark = _initialize(new, spec, old, stand_in)
    _keep_trainable(new, old)
    if hasattr(old, "num_prefix_tokens"):
        new.num_prefix_tokens = old.num_prefix_tokens
    drop, act = getattr(old, "drop", None), getattr(old, "act", None)
    if isinstance(drop, nn.Module) and isinstance(act, nn.Module):
        new = NormAct(new, copy.deepcopy(drop), copy.deepcopy(act))
    return new.train(old.training), name, remark


def _channels(old: nn.Module) -> int:
    if len(shape := normalized_shape(old)) > 1:
        raise NotReplaced(
            f"the layer normalizes over {len(shape)} axes at once; the norms of the zoo have one "
            "axis of channels"
        )
    if not (channels := channels_of(old)):
        raise NotReplaced("the number of its channels is unknown")
    return channels


def _in_layout(norm: Any, channels_last: bool) -> tuple[Any, str]:
    """The norm in the layout of the layer, and its name."""
    if not isinstance(norm, str):
        return norm, norm_label(norm)
    plain = norm.removesuffix("_2d")
    if channels_last and norm != plain:
        raise NotReplaced(
            f"the layer works on tokens (B, ..., C) and {norm} on images; {plain} is the one for "
            "tokens"
        )
    name = plain if channels_last else f"{plain}_2d"
    if name not in NORMS:
        raise NotReplaced(
            f"the layer works on images (B, C, H, W) and {plain} has no form for images"
        )
    return name, name


def _options(
    spec: ReplacementSpec, norm: Any, old: nn.Module, kind: NormType, context: Mapping[str, Any]
) -> dict[str, Any]:
    """The user's options, and where they are silent what the layer and the model say."""
    like = next(_floating(old), context["like"])
    defaults: dict[str, Any] = {name: value for name, value in context.items() if name != "like"}
    defaults |= {"device": like.device, "dtype": like.dtype}
    if "prefix_tokens" in defaults:
        defaults["prefix_tokens"] = getattr(old, "num_prefix_tokens", defaults["prefix_tokens"])
    if spec.init not in INITS:
        defaults["init"] = spec.init  # one of the norm's own
    if not isinstance(norm, str):
        defaults["channels_last"] = kind.channels_last
    if spec.init != "fitted" and _has_no_affine(old):
        defaults["affine"] = False
    if spec.init == "match":
        defaults |= _matching(old, kind, spec.name.removesuffix("_2d"))
    accepted = norm_options(norm)
    options = {
        name: value for name, value in defaults.items() if accepted is None or name in accepted
    } | dict(spec.options)
    if accepted is not None and "grid" in accepted and "grid" not in options:
        raise NotReplaced(
            f"{spec.name} needs the grid of its tokens, which this model does not tell: give "
            "grid=(rows, columns)"
        )
    return options


def _matching(old: nn.Module, kind: NormType, plain: str) -> dict[str, Any]:
    """Options with which the norm `plain` computes what the old layer does, as far as both mean the
    same by them.
    """
    options: dict[str, Any] = {}
    if plain in _AS_IN_TORCH or plain == kind.kind.removesuffix("_2d"):
        heads = getattr(old, "num_groups", getattr(old, "num_heads", None))
        options |= {"eps": eps_of(old), "num_heads": heads}
    if isinstance(old, _BatchNorm) and plain in ("batch_norm", "rep_batch_norm"):
        options["momentum"] = old.momentum
    if getattr(old, "bias", None) is not None:
        options["bias"] = True
    if eval_affine(old) is not None:
        options["affine"] = True  # the statistics of a layer without affine go there
    return {name: value for name, value in options.items() if value is not None}


def _has_no_affine(old: nn.Module) -> bool:
    recognized = recognize(old)
    return recognized is None or recognized.names == (None, None)


def _floating(module: nn.Module) -> Iterator[Tensor]:
    tensors = (*module.parameters(), *module.buffers())
    return (tensor for tensor in tensors if tensor.is_floating_point())


def _keep_trainable(new: nn.Module, old: nn.Module) -> None:
    """What was frozen stays frozen: a parameter follows the old one of its name, others the old
    layer as a whole.
    """
    before = {name: parameter.requires_grad for name, parameter in old.named_parameters()}
    trainable = any(before.values()) or _has_no_affine(old)
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(before.get(name, trainable))


def _initialize(
    new: nn.Module, spec: ReplacementSpec, old: nn.Module, stand_in: StandIn | None
) -> str:
    """Set the initial values; returns a remark on what they keep."""
    if stand_in is not None:
        return init_from_curve(new, stand_in, spec.families)
    return init_from_layer(new, old) if spec.init == "match" else ""

"""What comes in place of one normalization layer: a norm of the zoo in the layer's layout, with a
chosen start.

Layouts: token norms (B, ..., C) get the norm `name`, norms on images (B, C, ...) get `name_2d`.
Starts: `default`, the norm's own initial values; `match`, the layer's affine and running
statistics, so that the function stays where it can; `fitted`, the curve that was fitted to the
layer (a `StandIn`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from probe.curves.stand_in import StandIn
from probe.errors import UsageError, unknown
from probe.models.reading.conventions import normalized_shape
from probe.models.reading.layers import channels_of, eps_of, eval_affine
from probe.models.reading.norm_types import NormType
from probe.models.reading.recognize import recognize
from probe.models.replacing.initial_values import FORMS, NotReplaced, match, play
from probe.norms.registry import NORMS, create_norm, norm_maker, norm_options

INITS = ("default", "match", "fitted")
_AS_IN_TORCH = (
    "layer_norm",
    "rms_norm",
    "batch_norm",
    "instance_norm",
    "group_norm",
)  # eps means the same


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


@dataclass(frozen=True)
class Wish:
    """What the user asked for, checked before anything is built. Raises UsageError for what no
    layer could satisfy.
    """

    norm: str | Callable[..., nn.Module]
    init: str = "default"
    stand_ins: Mapping[str, StandIn] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)  # layer -> why it has no stand-in
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = norm_options(norm_maker(self.norm))
        if self.init not in INITS and (known is None or "init" not in known):
            raise unknown("init", self.init, INITS)
        if self.init == "fitted" and self.stand_ins is None:
            raise UsageError(
                "init 'fitted' needs fitted curves: give alphas= (a run, a table or a file), or "
                "init 'default' or 'match'"
            )
        if self.init != "fitted" and self.stand_ins is not None:
            raise UsageError(
                f"alphas are given, but init {self.init!r} does not use them; use init 'fitted' "
                "or leave alphas out"
            )
        if self.init == "fitted" and self.form is None:
            raise UsageError(
                f"init 'fitted' is for {', '.join(FORMS)}; {self.name} takes 'default' or 'match'"
            )
        if self.init == "fitted" and not (
            self.options.get("affine", True) and self.options.get("bias", True)
        ):
            raise UsageError("init 'fitted' needs a weight and a bias; leave affine= and bias= out")

    @property
    def name(self) -> str:
        return norm_label(self.norm)

    @property
    def form(self) -> str | None:
        """The curve that the norm can play; None where it is no curve."""
        return form_of(self.norm)


def norm_label(norm: str | Callable[..., nn.Module]) -> str:
    """What a norm is called: its name, or that of its class."""
    maker = norm.func if isinstance(norm, partial) else norm
    return maker if isinstance(maker, str) else getattr(maker, "__name__", type(maker).__name__)


def form_of(norm: str | Callable[..., nn.Module]) -> str | None:
    """The curve that a norm can play; None where it is no curve."""
    if isinstance(norm, str):
        return FORMS.get(norm.removesuffix("_2d"))
    made = norm.func if isinstance(norm, partial) else norm
    return next((form for name, form in FORMS.items() if NORMS[name] is made), None)


def make(
    wish: Wish, layer: str, old: nn.Module, kind: NormType, context: Mapping[str, Any]
) -> tuple[nn.Module, str, str]:
    """The module for `layer`, the name of its norm, and a remark. Raises NotReplaced with the
    reason why there is none.

    context: options that the model tells (grid, prefix_tokens), `like`: a tensor with the device
    and dtype of the model.
    """
    if kind.stays:
        raise NotReplaced(kind.stays)
    channels = _channels(old)
    norm, name = _in_layout(wish.norm, kind.channels_last)
    stand_in = _stand_in(wish, layer, channels) if wish.init == "fitted" else None
    try:
        new = create_norm(norm, channels, **_options(wish, norm, old, kind, context))
    except (UsageError, TypeError) as error:
        raise NotReplaced(str(error)) from error
    with torch.no_grad():
        remark = _start(new, wish, old, stand_in)
    _keep_trainable(new, old)
    if isinstance(getattr(old, "drop", None), nn.Module) and isinstance(
        getattr(old, "act", None), nn.Module
    ):
        new = NormAct(new, copy.deepcopy(old.drop), copy.deepcopy(old.act))  # type: ignore[arg-type]
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
    wish: Wish, norm: Any, old: nn.Module, kind: NormType, context: Mapping[str, Any]
) -> dict[str, Any]:
    """The user's options, and where they are silent what the layer and the model say."""
    like = next(_floating(old), context["like"])
    found: dict[str, Any] = {name: value for name, value in context.items() if name != "like"}
    found |= {"device": like.device, "dtype": like.dtype}
    if wish.init not in INITS:
        found["init"] = wish.init  # one of the norm's own
    if not isinstance(norm, str):
        found["channels_last"] = kind.channels_last
    if wish.init != "fitted" and _has_no_affine(old):
        found["affine"] = False
    if wish.init == "match":
        found |= _matching(old, kind, wish.name.removesuffix("_2d"))
    known = norm_options(norm)
    chosen = {
        name: value for name, value in found.items() if known is None or name in known
    } | dict(wish.options)
    if known is not None and "grid" in known and "grid" not in chosen:
        raise NotReplaced(
            f"{wish.name} needs the grid of its tokens, which this model does not tell: give "
            "grid=(rows, columns)"
        )
    return chosen


def _matching(old: nn.Module, kind: NormType, plain: str) -> dict[str, Any]:
    """Options with which the norm `plain` computes what the old layer does, as far as both mean the
    same by them.
    """
    found: dict[str, Any] = {}
    if plain in _AS_IN_TORCH or plain == kind.kind.removesuffix("_2d"):
        found |= {
            "eps": eps_of(old),
            "num_heads": getattr(old, "num_groups", getattr(old, "num_heads", None)),
        }
    if isinstance(old, _BatchNorm) and plain in ("batch_norm", "rep_batch_norm"):
        found["momentum"] = old.momentum
    if getattr(old, "bias", None) is not None:
        found["bias"] = True
    if eval_affine(old) is not None:
        found["affine"] = True  # the statistics of a layer without affine go there
    return {name: value for name, value in found.items() if value is not None}


def _has_no_affine(old: nn.Module) -> bool:
    recognized = recognize(old)
    return recognized is None or recognized.names == (None, None)


def _floating(module: nn.Module) -> Iterator[Tensor]:
    return (
        tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()
    )


def _keep_trainable(new: nn.Module, old: nn.Module) -> None:
    """What was frozen stays frozen: a parameter follows the old one of its name, others the old
    layer as a whole.
    """
    given = dict(old.named_parameters())
    anything = any(parameter.requires_grad for parameter in given.values()) or _has_no_affine(old)
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(given[name].requires_grad if name in given else anything)


def _start(new: nn.Module, wish: Wish, old: nn.Module, stand_in: StandIn | None) -> str:
    """Set the initial values; returns a remark on what they keep."""
    if stand_in is not None:
        return play(new, stand_in, wish.form)
    return match(new, old) if wish.init == "match" else ""


def _stand_in(wish: Wish, layer: str, channels: int) -> StandIn:
    stand_in = (wish.stand_ins or {}).get(layer)
    if stand_in is None:
        raise NotReplaced(f"no stand-in: {_missing(wish, layer)}")
    if stand_in.form not in ("line", wish.form):
        raise NotReplaced(
            f"its stand-in is a curve of form {stand_in.form}; {wish.name} plays {wish.form}"
        )
    if len(stand_in.weight) != channels:
        raise UsageError(
            f"the alphas are of another model: {layer} has {channels} channels, its stand-in "
            f"{len(stand_in.weight)}"
        )
    return stand_in


def _missing(wish: Wish, layer: str) -> str:
    """Why there is no stand-in for a layer."""
    if layer in wish.left_out:
        return wish.left_out[layer]
    named = [*(wish.stand_ins or {}), *wish.left_out]
    if calls := [name for name in named if name.startswith(f"{layer}#")]:
        return (
            f"the layer is called {len(calls)} times in a forward pass, each with a curve of its "
            "own"
        )
    return (
        "the alphas do not name the layer (they name "
        f"{', '.join(named[:3]) or 'none'}{', ...' if len(named) > 3 else ''})"
    )

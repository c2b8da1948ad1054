"""How a norm starts that comes in place of another: as the curve fitted to the layer, or with the
layer's own affine and statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from probe.curves import StandIn
from probe.models.reading.layers import affine_of, channels_of, eval_affine
from probe.norms.base import Norm

_STATE = ("running_mean", "running_var")


class NotReplaced(Exception):
    """Why a layer stays as it is."""


def init_from_curve(new: Any, stand_in: StandIn, families: Sequence[str]) -> str:
    """Let a norm that can start as curves of `families` start as the stand-in; returns a remark.

    A line is the straight part of the first family where the norm is no line itself. Raises
    NotReplaced for values that overflow.
    """
    curve = curve_of(stand_in, families)
    weight, bias = (
        torch.as_tensor(values, dtype=torch.float64) for values in (curve.weight, curve.bias)
    )
    new.init_from_curve(
        curve.family, alpha=curve.alpha, shift=curve.shift, weight=weight, bias=bias
    )
    for name, parameter in new.named_parameters():
        if not torch.isfinite(parameter).all():
            raise NotReplaced(
                f"its stand-in is not finite in {str(parameter.dtype).removeprefix('torch.')}: "
                f"{name}"
            )
    return "" if curve is stand_in else "line: the layer has no alpha"


def curve_of(stand_in: StandIn, families: Sequence[str]) -> StandIn:
    """The stand-in as a norm of these families holds it."""
    return stand_in if stand_in.family in families else stand_in.as_family(families[0])


def init_from_layer(new: nn.Module, old: nn.Module) -> str:
    """Weight and bias of the old layer, its running statistics, and where both are affine at
    evaluation the same function; returns a remark on what was kept.
    """
    if type(new) is type(old):
        _copy_state(new, old)
        return "weights and statistics copied"
    for name in _STATE:
        _copy_into(getattr(new, name, None), getattr(old, name, None))
    weight, bias = affine_of(old, channels_of(old))
    if isinstance(new, Norm):
        new.match_affine(weight, bias)
        if (line := eval_affine(old)) is not None and _solve(new, *line):
            return "the same function at evaluation"
    else:
        for name, value in (("weight", weight), ("bias", bias)):
            _copy_into(getattr(new, name, None), value)
    lost = [
        name
        for name, differs in (("weight", weight != 1), ("bias", bias != 0))
        if differs.any() and getattr(new, name, None) is None
    ]
    if lost:
        return f"its {' and '.join(lost)} has no place in the new norm"
    return "weight and bias copied"


def _copy_state(new: nn.Module, old: nn.Module) -> None:
    """The entries of the state that have the same shape in both."""
    shapes = {name: value.shape for name, value in new.state_dict().items()}
    state = old.state_dict().items()
    fitting = {name: value for name, value in state if shapes.get(name) == value.shape}
    new.load_state_dict(fitting, strict=False)


def _copy_into(own: object, value: object) -> None:
    """Fill a tensor with the values of another of as many, where there are both."""
    if isinstance(own, Tensor) and isinstance(value, Tensor) and own.numel() == value.numel():
        own.copy_(value.reshape(own.shape))


def _solve(new: Norm, scale: Tensor, shift: Tensor) -> bool:
    """Choose weight and bias of a norm that is affine at evaluation so that it computes scale * x +
    shift.

    Its own scale is linear in the weight, s(w) = s(0) + w (s(1) - s(0)), and its bias is added at
    the end.
    """
    weight, bias = new.weight, new.bias
    if weight is None or bias is None or new.eval_affine() is None:
        return False

    def own_line(value: Tensor) -> tuple[Tensor, Tensor]:
        weight.copy_(value)
        line = new.eval_affine()
        assert line is not None  # as it was before
        return line

    bias.zero_()
    at_zero = own_line(torch.zeros_like(scale))[0]
    at_one = own_line(torch.ones_like(scale))[0]
    bias.copy_(shift - own_line((scale - at_zero) / (at_one - at_zero))[1])
    return True

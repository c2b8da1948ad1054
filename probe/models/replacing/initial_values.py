"""How a norm starts that comes in place of another: as the curve fitted to the layer, or with the
layer's own affine and statistics.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from probe.curves.stand_in import StandIn
from probe.models.reading.layers import affine_of, channels_of, eval_affine
from probe.norms.base import Norm

FORMS = {
    "dyt": "tanh",
    "derf": "erf",
    "dyisru": "isru",
    "learnable_scaler": "line",
}  # norm -> the stand-in it can play
_SLOPES = {"tanh": 1.0, "erf": 2 / math.sqrt(math.pi), "isru": 1.0}  # f'(0)
_STATE = ("running_mean", "running_var")


class NotReplaced(Exception):
    """Why a layer stays as it is."""


def play(new: nn.Module, stand_in: StandIn, form: str | None) -> str:
    """Give the norm the curve of the stand-in: weight * f(alpha x + shift) + bias."""
    is_line = stand_in.form == "line"
    alpha = stand_in.alpha / (_SLOPES.get(form or "", 1.0) if is_line else 1.0)
    values = {"weight": stand_in.weight, "bias": stand_in.bias}
    if form == "line":
        values["weight"] = stand_in.weight * alpha
    elif form == "isru":  # DyISRU: weight sqrt(C) x / sqrt(beta + x^2)
        values |= {"beta": [alpha**-2], "weight": stand_in.weight / math.sqrt(len(stand_in.weight))}
    else:
        values |= {"alpha": [alpha]} | ({"shift": [stand_in.shift]} if form == "erf" else {})
    for name, value in values.items():
        parameter = getattr(new, name)
        parameter.copy_(torch.as_tensor(value, dtype=torch.float64))
        if not torch.isfinite(parameter).all():
            raise NotReplaced(
                f"its stand-in is not finite in {str(parameter.dtype).removeprefix('torch.')}: "
                f"{name}"
            )
    return "line: the layer has no alpha" if is_line and form != "line" else ""


def match(new: nn.Module, old: nn.Module) -> str:
    """Weight and bias of the old layer, its running statistics, and where both are affine at
    evaluation the same function.
    """
    if type(new) is type(old):
        shapes = {name: value.shape for name, value in new.state_dict().items()}
        fitting = {
            name: value
            for name, value in old.state_dict().items()
            if shapes.get(name) == value.shape
        }
        new.load_state_dict(fitting, strict=False)
        return "weights and statistics copied"
    for name in _STATE:
        own, given = getattr(new, name, None), getattr(old, name, None)
        if isinstance(own, Tensor) and isinstance(given, Tensor):
            own.copy_(given.reshape(own.shape))
    weight, bias = affine_of(old, channels_of(old))
    if isinstance(new, Norm):
        new.match_affine(weight, bias)
        if (line := eval_affine(old)) is not None and _solve(new, *line):
            return "the same function at evaluation"
    else:
        for own, value in (
            (getattr(new, "weight", None), weight),
            (getattr(new, "bias", None), bias),
        ):
            if isinstance(own, Tensor) and own.numel() == value.numel():
                own.copy_(value.reshape(own.shape))
    lost = [
        name
        for name, value in (("weight", weight != 1), ("bias", bias != 0))
        if value.any() and _holds_no(new, name)
    ]
    return (
        f"its {' and '.join(lost)} has no place in the new norm"
        if lost
        else "weight and bias copied"
    )


def _holds_no(module: nn.Module, name: str) -> bool:
    return getattr(module, name, None) is None


def _solve(new: Norm, scale: Tensor, shift: Tensor) -> bool:
    """Choose weight and bias of a norm that is affine at evaluation so that it computes scale * x +
    shift.

    Its own scale is linear in the weight, s(w) = s(0) + w (s(1) - s(0)), and its bias is added at
    the end.
    """
    weight, bias = new.weight, new.bias
    if weight is None or bias is None or new.eval_affine() is None:
        return False

    def own(value: Tensor) -> tuple[Tensor, Tensor]:
        weight.copy_(value)
        found = new.eval_affine()
        assert found is not None  # as it was before
        return found

    bias.zero_()
    at_zero, at_one = own(torch.zeros_like(scale))[0], own(torch.ones_like(scale))[0]
    bias.copy_(shift - own((scale - at_zero) / (at_one - at_zero))[1])
    return True

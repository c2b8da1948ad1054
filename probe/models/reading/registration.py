"""Normalization classes of a user's own: `register_norm` says what they compute.

    probe.register_norm(MyNorm, "rms_norm")  # computes what that kind does

    def normalized(module, x): ...
    probe.register_norm(MyNorm, normalized, channels_last=False)  # any norm, by a function of its z

A registration holds for the class and its sub-classes, before everything that probe knows by
itself, until `unregister_norm` or the end of the process. Registering a class again replaces it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from probe.errors import UsageError, named_first_line, unknown
from probe.models.reading.formulas import Formula
from probe.models.reading.norm_types import NormType
from probe.models.reading.recognize import foreign_kinds, foreign_type
from probe.models.reading.registry import REGISTERED, USUAL, Registration
from probe.stats.observed import GivenNorm

_SAID: dict[type[nn.Module], dict[str, Any]] = {}  # what each class was registered with

Normalized = Callable[[Any, Tensor], Tensor]

# What a class of one's own may compute. The other response norms and the EvoNorms are not among
# them, as their z is taken from the module's own forward pass.
LIKE = (*foreign_kinds(), "global_response_norm", "global_response_norm_2d")


def register_norm(
    norm: type[nn.Module],
    like: str | Normalized,
    *,
    kind: str | None = None,
    channels_last: bool | None = None,
    weight: str | None = USUAL,
    bias: str | None = USUAL,
) -> None:
    """Say what a normalization class computes, so that every job reads its layers.

    norm: the class. like: the name of the kind that it computes (`layer_norm`, `rms_norm`,
    `group_norm`, ...), or a function (module, x) -> normalized, which returns z of
    output = w * z + b in the shape of x, without w and b. It is called inside of a forward pass,
    without gradients, and may call the module.
    kind: what the layers are called in tables; default: the known kind, or the name of the class
    in the manner of `my_norm`.
    channels_last: x is (B, ..., C), or (B, C, ...) where False; default: as the known kind, or
    True for a function.
    weight, bias: attributes that hold w and b, which a trial on random numbers finds by itself, and
    so it does a weight that is stored as w - 1 (Gemma); where the class runs on no such numbers
    they are weight (or gamma) and bias (or beta), if nothing is said here. None: it has none.

    Raises UsageError for what is no such class, kind or function.
    """
    _check_class(norm)
    said = {"kind": kind, "channels_last": channels_last, "weight": weight, "bias": bias}
    if isinstance(like, str):
        made = _like(norm, like, kind, channels_last)
    elif callable(like) and not isinstance(like, type):
        made = _by_function(norm, like, kind, channels_last)
    else:
        raise UsageError(
            f"{norm.__name__} is to be read like {like!r}: give the name of a kind or a function "
            "(module, x) -> normalized"
        )
    REGISTERED[norm] = Registration(made, weight, bias)
    _SAID[norm] = {"like": like, **said}


def unregister_norm(norm: type[nn.Module]) -> None:
    """Read the class as before it was registered. Raises UsageError where it is not registered."""
    if norm not in REGISTERED:
        names = ", ".join(cls.__name__ for cls in REGISTERED) or "none"
        raise UsageError(
            f"{getattr(norm, '__name__', norm)!r} is not registered; registered: {names}"
        )
    del REGISTERED[norm], _SAID[norm]


def registered_names() -> dict[str, str]:
    """Module and name of every registered class, and the kind of its layers, for the manifest."""
    return {
        f"{cls.__module__}:{cls.__qualname__}": said.norm_type.kind
        for cls, said in REGISTERED.items()
    }


class Registered:
    """The registrations of this process; unpickled in another one, they hold there too."""

    def __init__(self) -> None:
        self._said = {norm: said for norm, said in _SAID.items() if norm in REGISTERED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for norm, said in self._said.items():
            register_norm(norm, **said)


def _check_class(norm: Any) -> None:
    if not (isinstance(norm, type) and issubclass(norm, nn.Module)):
        is_class = isinstance(norm, type)
        what = norm.__name__ if is_class else f"an object of type {type(norm).__name__}"
        raise UsageError(
            f"{what} is no nn.Module class: give the class of the layers, such as MyNorm"
        )
    if norm is nn.Module:
        raise UsageError("nn.Module is the base of every layer: give the class of the norm alone")


def _like(
    norm: type[nn.Module], like: str, kind: str | None, channels_last: bool | None
) -> NormType:
    if like not in LIKE:
        raise unknown("kind", like, LIKE)
    known = foreign_type(_in_layout(like, channels_last))

    def formula(module: Any, x: Tensor) -> Formula:
        try:
            return known.formula(module, x)
        except AttributeError as error:
            raise UsageError(
                f"{norm.__name__} is registered as {known.kind}, which reads {error.name!r} from "
                "the module: register it with a function (module, x) -> normalized"
            ) from error

    return replace(known, kind=kind or known.kind, formula=formula)


def _in_layout(like: str, channels_last: bool | None) -> str:
    """The name of the kind in the layout that was asked for."""
    tokens, planes = like.removesuffix("_2d"), f"{like.removesuffix('_2d')}_2d"
    if channels_last is None:
        return like
    name = tokens if channels_last else planes
    if planes in LIKE:
        return name
    if channels_last:
        raise UsageError(f"{like} is on images (B, C, ...): it takes no channels_last=True")
    return like


def _by_function(
    norm: type[nn.Module], function: Normalized, kind: str | None, channels_last: bool | None
) -> NormType:
    what = f"the function registered for {norm.__name__}"

    def formula(module: Any, x: Tensor) -> Formula:
        try:
            z = function(module, x)
        except Exception as error:
            raise UsageError(
                f"{what} failed on an input of shape {tuple(x.shape)}: {named_first_line(error)}"
            ) from error
        if not isinstance(z, Tensor):
            raise UsageError(f"{what} returned a {type(z).__name__}; a tensor is needed")
        if z.shape != x.shape:
            raise UsageError(
                f"{what} returned shape {tuple(z.shape)}; its input has {tuple(x.shape)}, and so "
                "must the normalized value"
            )
        return GivenNorm(z.detach())

    return NormType(
        kind or snake_case(norm.__name__),
        lambda module: isinstance(module, norm),
        formula,
        channels_last=channels_last is not False,
    )


def snake_case(name: str) -> str:
    """`my_norm_2d` of `MyNorm2d`."""
    starts = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[a-z])(?=\d)"
    return re.sub(starts, "_", name).lower()

"""Normalization classes of a user's own: `register_norm` says what they compute.

    probe.register_norm(MyNorm, "rms_norm")                 # computes what that kind does

    @probe.register_norm("rms_norm", weight="scale")        # the same, where the class is written
    class MyNorm(nn.Module): ...

    @probe.register_norm(MyNorm, channels_last=False)       # any norm, by a function of its z
    def normalized(module, x): ...

A registration holds for the class and its sub-classes, before everything that probe knows by
itself, until `unregister_norm` or the end of the process. Registering a class again replaces it.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from probe.errors import UsageError, first_line, nearest, unknown
from probe.models.reading.formulas import Formula
from probe.models.reading.norm_types import NormType
from probe.models.reading.recognize import foreign_type
from probe.models.reading.registry import REGISTERED, USUAL, Registration
from probe.stats.observed import GivenNorm

Normalized = Callable[[Any, Tensor], Tensor]

# What a class of one's own may compute: the kinds that read nothing but eps, alpha, num_groups and
# running statistics from the module.
LIKE = (
    "layer_norm",
    "layer_norm_2d",
    "rms_norm",
    "rms_norm_2d",
    "batch_norm",
    "instance_norm",
    "group_norm",
    "simple_norm",
    "simple_norm_2d",
    "dyt",
    "dyt_2d",
    "global_response_norm",
    "global_response_norm_2d",
)
_EXAMPLE = "mypkg.layers:MyNorm=rms_norm"


def register_norm(
    norm: type[nn.Module] | str,
    like: str | Normalized | None = None,
    *,
    kind: str | None = None,
    channels_last: bool | None = None,
    weight: str | None = USUAL,
    bias: str | None = USUAL,
) -> Any:
    """Say what a normalization class computes, so that every job reads its layers.

    norm: the class. like: the name of the kind that it computes (`layer_norm`, `rms_norm`,
    `group_norm`, ...), or a function (module, x) -> normalized, which returns z of
    output = w * z + b in the shape of x, without w and b. It is called inside of a forward pass,
    without gradients, and may call the module.
    kind: what the layers are called in tables; default: the known kind, or the name of the class
    in the manner of `my_norm`.
    channels_last: x is (B, ..., C), or (B, C, ...) where False; default: as the known kind, or
    True for a function.
    weight, bias: attributes that hold w and b; None: it has none; default: weight (or gamma), bias
    (or beta). A weight that is stored as w - 1, Gemma's 1 + w, is found by itself.

    Without `like` the answer is a decorator: of a class after a kind, of a function after a class.
    Else it is the class. Raises UsageError for what is no such class, kind or function.
    """
    options: dict[str, Any] = {
        "kind": kind,
        "channels_last": channels_last,
        "weight": weight,
        "bias": bias,
    }
    if isinstance(norm, str):
        _known_kind(norm)
        return lambda cls: register_norm(cls, norm, **options)
    _check_class(norm)
    if like is None:
        return lambda function: _register_function(norm, function, **options)
    if isinstance(like, str):
        made = _like(norm, like, kind, channels_last)
    elif callable(like):
        made = _by_function(norm, like, kind, channels_last)
    else:
        raise UsageError(
            f"{norm.__name__} is to be read like {like!r}: give the name of a kind or a function "
            "(module, x) -> normalized"
        )
    REGISTERED[norm] = Registration(made, weight, bias)
    return norm


def unregister_norm(norm: type[nn.Module]) -> None:
    """Read the class as before it was registered. Raises UsageError where it is not registered."""
    if norm not in REGISTERED:
        names = ", ".join(cls.__name__ for cls in REGISTERED) or "none"
        raise UsageError(
            f"{getattr(norm, '__name__', norm)!r} is not registered; registered: {names}"
        )
    del REGISTERED[norm]


def registered_names() -> dict[str, str]:
    """Module and name of every registered class, and the kind of its layers, for the manifest."""
    return {
        f"{cls.__module__}:{cls.__qualname__}": said.norm_type.kind
        for cls, said in REGISTERED.items()
    }


def _register_function(norm: type[nn.Module], function: Normalized, **options: Any) -> Normalized:
    register_norm(norm, function, **options)
    return function


def _check_class(norm: Any) -> None:
    if not (isinstance(norm, type) and issubclass(norm, nn.Module)):
        what = f"a {type(norm).__name__}" if not isinstance(norm, type) else norm.__name__
        raise UsageError(
            f"{what} is no nn.Module class: give the class of the layers, such as MyNorm"
        )
    if norm is nn.Module:
        raise UsageError("nn.Module is the base of every layer: give the class of the norm alone")


def _known_kind(name: str) -> NormType:
    known = foreign_type(name)
    if name not in LIKE or known is None:
        raise unknown("kind", name, LIKE)
    return known


def _like(
    norm: type[nn.Module], like: str, kind: str | None, channels_last: bool | None
) -> NormType:
    known = _known_kind(_in_layout(like, channels_last))

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
    if channels_last is None or like not in LIKE:
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
                f"{what} failed on an input of shape {tuple(x.shape)}: {type(error).__name__}: "
                f"{first_line(error)}"
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
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[a-z])(?=\d)", "_", name).lower()


@contextmanager
def registered_by_name(texts: Iterable[str]) -> Iterator[None]:
    """While the block runs, the classes of texts such as `mypkg.layers:MyNorm=rms_norm` are
    registered.

    Right of the `=` stands a kind, or a function as MODULE:NAME. Modules are looked for from the
    current directory, too.
    """
    before = dict(REGISTERED)
    try:
        for text in texts:
            try:
                _register_text(text)
            except UsageError as error:
                raise UsageError(f"--norm-type {text}: {error}") from error
        yield
    finally:
        REGISTERED.clear()
        REGISTERED.update(before)


def _register_text(text: str) -> None:
    place, equals, like = text.partition("=")
    if not equals or not like or not re.fullmatch(r"[\w.]+:[\w.]+", place):
        raise UsageError(f"must be MODULE:CLASS=KIND, e.g. {_EXAMPLE}")
    register_norm(_named_object(place), _named_object(like) if ":" in like else like)


def _named_object(place: str) -> Any:
    module_name, _, path = place.partition(":")
    found: Any = _imported(module_name)
    for name in path.split("."):
        if not hasattr(found, name):
            close = nearest(name, dir(found))
            hint = f" (did you mean {close}?)" if close else ""
            raise UsageError(f"module {module_name!r} has no {path!r}{hint}")
        found = getattr(found, name)
    return found


def _imported(name: str) -> Any:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as error:  # an import runs the user's code, which may raise anything
        raise UsageError(
            f"module {name!r} cannot be imported: {first_line(error)} (looked for in {here} and "
            "among the installed packages)"
        ) from error
    finally:
        sys.path.remove(here)


__all__ = ["register_norm", "registered_by_name", "registered_names", "unregister_norm"]

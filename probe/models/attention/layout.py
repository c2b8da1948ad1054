"""What a model says about its tokens: prefix tokens, patch size; and what the user says instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from probe.errors import UsageError

Pair = tuple[int, int]  # height and width

# parameters that stand before the patches, by the last part of their name: one kind a row
_PREFIX_PARAMETERS = (
    ("cls_token", "class_token", "class_embedding", "cls_embedding", "cls_token_0"),
    ("dist_token", "distillation_token"),
    ("reg_token", "register_tokens", "registers", "register_token"),
)


@dataclass(frozen=True)
class Frame:
    """A module that is running: its path and the shape of the first tensor that it was given."""

    path: str
    module: nn.Module
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Tokens:
    """prefix: numbers of prefix tokens to try, the likeliest first; patch: size in pixels; the rest
    is from the user alone.
    """

    prefix: tuple[int, ...]
    patch: tuple[int, int] | None
    grid: tuple[int, int] | None = None
    given_prefix: bool = False
    given_patch: bool = False

    @property
    def given(self) -> str:
        """What the user said, for a message."""
        said = {
            "prefix_tokens": self.prefix[0] if self.given_prefix else None,
            "patch_size": self.patch if self.given_patch else None,
        }
        return ", ".join(
            f"{name}={value}"
            for name, value in (said | {"grid": self.grid}).items()
            if value is not None
        )


def tokens_of(
    module: nn.Module,
    prefix_tokens: int | None,
    patch_size: int | tuple[int, int] | None,
    grid: tuple[int, int] | None,
) -> Tokens:
    """What is known of the tokens of `module`. Raises UsageError for an override that nothing can
    fit.
    """
    if prefix_tokens is not None and (not isinstance(prefix_tokens, int) or prefix_tokens < 0):
        raise UsageError(f"prefix_tokens={prefix_tokens!r}: accepted is a number of tokens from 0")
    if grid is not None:
        grid = _pair("grid", grid)
    patch = _pair("patch_size", patch_size) if patch_size is not None else _patch_size(module)
    prefix = (prefix_tokens,) if prefix_tokens is not None else _prefix_options(module)
    return Tokens(prefix, patch, grid, prefix_tokens is not None, patch_size is not None)


def _pair(name: str, value: Any) -> tuple[int, int]:
    pair = as_pair(value)
    if pair is None:
        raise UsageError(
            f"{name}={value!r}: accepted is a whole number from 1 or a pair (height, width) of them"
        )
    return pair


def as_pair(value: Any) -> tuple[int, int] | None:
    """A positive whole number or two of them as (height, width); None for anything else."""
    values = (
        (value, value)
        if isinstance(value, int)
        else tuple(value)
        if isinstance(value, tuple | list)
        else ()
    )
    if len(values) == 2 and all(
        isinstance(item, int) and not isinstance(item, bool) and item > 0 for item in values
    ):
        return values[0], values[1]
    return None


def _patch_size(module: nn.Module) -> Pair | None:
    """`patch_size` of the model, its configuration or its patch embedding; of a wrapper, of the
    first module that has one.
    """
    for child in module.modules():
        if (
            child is module
            or hasattr(child, "patch_embed")
            or "Embed" in type(child).__name__
            or hasattr(child, "config")
        ):
            for owner in (
                getattr(child, "patch_embed", None),
                child,
                getattr(child, "config", None),
            ):
                if (pair := as_pair(getattr(owner, "patch_size", None))) is not None:
                    return pair
    return None


def _prefix_options(module: nn.Module) -> tuple[int, ...]:
    """Numbers of prefix tokens a layer may have: all that the model has, then the first kinds of
    them, then none.
    """
    said = [
        value
        for child in module.modules()
        if isinstance(value := getattr(child, "num_prefix_tokens", None), int)
    ]
    found = list(_prefix_parameters(module.named_parameters()))
    return tuple(dict.fromkeys([*said[:1], *reversed(list(accumulate(found))), 0]))


def _prefix_parameters(parameters: Iterable[tuple[str, Tensor]]) -> Iterable[int]:
    """How many tokens each kind of prefix parameter holds: (C,) or (1, 1, C) is one, (1, n, C) is
    n.
    """
    by_name = {name.rpartition(".")[2]: parameter for name, parameter in parameters}
    for names in _PREFIX_PARAMETERS:
        parameter = next((by_name[name] for name in names if name in by_name), None)
        if parameter is not None:
            yield parameter.shape[-2] if parameter.ndim > 1 else 1

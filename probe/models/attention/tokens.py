"""What the user says about the tokens of a model, and which prefix tokens a model declares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from probe.errors import UsageError
from probe.models.attention.known import PREFIX_PARAMETERS

Pair = tuple[int, int]  # height and width


@dataclass(frozen=True)
class TokenOptions:
    """What the user said: None where nothing. `declared_prefixes` are the numbers of prefix tokens
    that the model itself may have, the likeliest first."""

    prefix: int | None = None
    patch: Pair | None = None
    grid: Pair | None = None
    declared_prefixes: tuple[int, ...] = (0,)

    @property
    def text(self) -> str:
        """What the user said, for a message; empty where nothing."""
        options = {"prefix_tokens": self.prefix, "patch_size": self.patch, "grid": self.grid}
        return ", ".join(f"{name}={value}" for name, value in options.items() if value is not None)

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Numbers of prefix tokens that a layer may have."""
        return self.declared_prefixes if self.prefix is None else (self.prefix,)


def token_options(
    module: nn.Module,
    prefix_tokens: int | None = None,
    patch_size: int | tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
) -> TokenOptions:
    """The user's words, checked. Raises UsageError for what can fit no model."""
    if prefix_tokens is not None and (not isinstance(prefix_tokens, int) or prefix_tokens < 0):
        raise UsageError(f"prefix_tokens={prefix_tokens!r}: accepted is a number of tokens from 0")
    return TokenOptions(
        prefix_tokens,
        _pair("patch_size", patch_size) if patch_size is not None else None,
        _pair("grid", grid) if grid is not None else None,
        _declared_prefixes(module),
    )


def _pair(name: str, value: Any) -> Pair:
    pair = as_pair(value)
    if pair is None:
        raise UsageError(
            f"{name}={value!r}: accepted is a whole number from 1 or a pair (height, width) of them"
        )
    return pair


def as_pair(value: Any) -> Pair | None:
    """A positive whole number or two of them as (height, width); None for anything else."""
    values = (value, value) if isinstance(value, int) else value
    if not isinstance(values, tuple | list) or len(values) != 2:
        return None
    if any(not isinstance(side, int) or isinstance(side, bool) or side < 1 for side in values):
        return None
    return values[0], values[1]


def _declared_prefixes(module: nn.Module) -> tuple[int, ...]:
    """All prefix tokens that the model has, then the first kinds of them, then none."""
    stated = [
        value
        for child in module.modules()
        if isinstance(value := getattr(child, "num_prefix_tokens", None), int)
    ]
    counts = list(_prefix_parameters(module.named_parameters()))
    return tuple(dict.fromkeys([*stated[:1], *reversed(list(accumulate(counts))), 0]))


def _prefix_parameters(parameters: Iterable[tuple[str, Tensor]]) -> Iterable[int]:
    """How many tokens each kind of prefix parameter holds: (C,) or (1, 1, C) is one, (1, n, C) is
    n."""
    by_name = {name.rpartition(".")[2]: parameter for name, parameter in parameters}
    for names in PREFIX_PARAMETERS:
        parameter = next((by_name[name] for name in names if name in by_name), None)
        if parameter is not None:
            yield parameter.shape[-2] if parameter.ndim > 1 else 1

"""A norm of the zoo by its name, as the layers of a network are built with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from probe.norms.registry import create_norm, norm_maker, norm_options

NormLayer = Callable[..., nn.Module]  # channels -> module
NormChoice = str | Callable[..., nn.Module]


def norm_layer(
    norm: NormChoice, options: Mapping[str, Any] | None = None, **known: Any
) -> NormLayer:
    """What makes the norm `norm` for some channels, in the token layout.

    known: what the network knows of the place (num_heads, grid, prefix_tokens, eps); the norm gets
    those that it takes, and `options` go before them. Each module says in `num_prefix_tokens` how
    many of its tokens have no place on the grid, where the network knows.
    """
    norm_maker(norm)  # an unknown name is refused here, with the nearest ones
    accepted = norm_options(norm)
    taken = {name: value for name, value in known.items() if accepted and name in accepted}
    chosen = taken | dict(options or {})

    def make(channels: int, **where: Any) -> nn.Module:  # timm takes partials apart, functions not
        module = create_norm(norm, channels, **chosen, **where)
        if "prefix_tokens" in known:
            module.num_prefix_tokens = known["prefix_tokens"]
        return module

    return make

"""The standard deviation of what enters each normalization layer, over every element of every
image: what alpha of a DyT follows (https://arxiv.org/abs/2503.10622, figures 8 and 9).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from probe.models.reading.layers import norm_modules, unwrapped
from probe.models.reading.observe import first_tensor


class Spread:
    """Sums over the elements that went into one layer, in float64."""

    def __init__(self) -> None:
        self.count, self._sum, self._square = 0, 0.0, 0.0

    def update(self, x: Tensor) -> None:
        values = x.detach().double()
        self.count += values.numel()
        self._sum += float(values.sum())
        self._square += float(values.square().sum())

    @property
    def std(self) -> float:
        """sqrt(mean of squares - squared mean); NaN without elements."""
        if not self.count:
            return math.nan
        mean = self._sum / self.count
        return math.sqrt(max(self._square / self.count - mean * mean, 0.0))


@contextmanager
def input_spread(module: nn.Module) -> Iterator[dict[str, Spread]]:
    """Spread of the inputs of each layer, by its path, of the forward passes in the block; layers
    that are not called stay without elements.
    """
    spreads = {name: Spread() for name, _, _ in norm_modules(unwrapped(module))}
    with ExitStack() as stack:
        for name, child, _ in norm_modules(unwrapped(module)):
            handle = child.register_forward_pre_hook(_adding_to(spreads[name]), with_kwargs=True)
            stack.callback(handle.remove)
        yield spreads


def _adding_to(spread: Spread) -> Callable[..., None]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = first_tensor(args, kwargs)
        if x is not None:
            with torch.no_grad():
                spread.update(x)

    return hook

"""Where a call happens: the running modules and what the model was given."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from probe.models.attention.tokens import Pair, TokenOptions


@dataclass(frozen=True)
class Frame:
    """A module that is running: its path and the shape of the first tensor that it was given."""

    path: str
    module: nn.Module
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class CallSite:
    """`frames`: the running modules, outermost first, down to the layer. `size`: of the images in
    pixels. `first`: was no layer read before?"""

    frames: tuple[Frame, ...]
    images: int
    size: Pair | None
    options: TokenOptions
    first: bool

    @property
    def layer(self) -> Frame:
        return self.frames[-1]

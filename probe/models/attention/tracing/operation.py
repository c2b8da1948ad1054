"""One call of an operation below the level of functions, with what is known of its tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from probe.models.attention.tracing import moves
from probe.models.attention.tracing.places import Places
from probe.models.attention.tracing.track import Track

PRODUCTS = {"mm", "bmm", "addmm", "baddbmm"}
_HARMLESS = moves.VIEWS | moves.KEPT | {"view", "_unsafe_view", "reshape", "copy"}


@dataclass(frozen=True, eq=False)
class Operation:
    """One call of an operation below the level of functions."""

    func: Any
    args: tuple
    kwargs: dict
    out: Any
    track: Callable[[Any], Track | None]
    places: Places

    @cached_property
    def name(self) -> str:
        """Without its namespace, and without the underscore of an operation in place."""
        name = self.func._schema.name.split("::")[1]
        return name.removesuffix("_")

    @property
    def is_softmax(self) -> bool:
        return self.name in moves.SOFTMAXES

    @cached_property
    def given(self) -> dict[str, Any]:
        """Arguments by name."""
        names = [argument.name for argument in self.func._schema.arguments]
        defaults = {a.name: a.default_value for a in self.func._schema.arguments}
        return defaults | dict(zip(names, self.args, strict=False)) | self.kwargs

    @cached_property
    def tensors(self) -> list[Tensor]:
        return [v for v in tree_leaves([self.args, self.kwargs]) if isinstance(v, Tensor)]

    @cached_property
    def tracks(self) -> list[Track]:
        return [track for tensor in self.tensors if (track := self.track(tensor)) is not None]

    @property
    def results(self) -> list[Tensor]:
        return [value for value in tree_leaves(self.out) if isinstance(value, Tensor)]

    @property
    def shape(self) -> torch.Size:
        """Of the first result."""
        return self.results[0].shape

    @property
    def is_product(self) -> bool:
        return self.name in PRODUCTS

    def alters_weights(self, tracks: list[Track]) -> bool:
        """Are attention weights changed by this, other than by one factor for each query?"""
        if self.name in _HARMLESS or (self.is_product and not tracks[0].is_scores):
            return False
        if torch.Tag.pointwise not in self.func.tags:
            return True
        weights = [track for track in self.tracks if track.weights_of is not None]
        others = [t for t in self.tensors if (k := self.track(t)) is None or k.weights_of is None]
        return len(weights) > 1 or any(t.ndim and t.shape[-1] > 1 for t in others)

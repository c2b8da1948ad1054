"""The affine maps that a normalization layer holds and could give away, per channel and in float64
on the host.

- the whole layer, where at evaluation it is y = s x + t (BatchNorm and its kin);
- its output affine, y = w z + b;
- the input affine of a dynamic curve, f(alpha x + shift).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from probe.models.folding.graph import NotFoldable
from probe.models.reading.conventions import curve_names, normalized_shape
from probe.models.reading.layers import affine_of, channels_of, eval_affine
from probe.models.reading.norm_types import NormType
from probe.models.reading.recognize import neutral_affine, recognize
from probe.norms import Norm

_IDENTITY = (1.0, 0.0)  # scale and shift


class Direction(StrEnum):
    """Which map of a layer is folded, and to which side."""

    BEFORE = "before"  # the whole layer, into the linear layer before it
    AFTER = "after"  # the whole layer, into the linear layers after it
    AFFINE = "affine"  # its weight and bias, into the linear layers after it
    ALPHA = "alpha"  # its alpha and shift, into the linear layer before it

    @property
    def is_upstream(self) -> bool:
        """Into what makes the input of the layer, not into what uses its output."""
        return self in (Direction.BEFORE, Direction.ALPHA)

    @property
    def removes_layer(self) -> bool:
        return self in (Direction.BEFORE, Direction.AFTER)


@dataclass(frozen=True)
class NormLayer:
    """A normalization layer by its path.

    layer = NormLayer("blocks.0.norm1", norm, norm_type(norm))
    layer.check(Direction.AFFINE)
    weight, bias = layer.map(Direction.AFFINE)  # each (C,)
    """

    path: str
    module: Any
    norm_type: NormType

    @property
    def kind(self) -> str:
        return self.norm_type.kind

    @property
    def axis(self) -> int:
        """Of the channels in its input and output."""
        return -1 if self.norm_type.channels_last else 1

    @property
    def is_affine(self) -> bool:
        """Is the whole layer y = s x + t at evaluation?"""
        return self.norm_type.affine(self.module)

    @property
    def has_alpha(self) -> bool:
        return self.norm_type.has_alpha

    @property
    def has_activation(self) -> bool:
        """A norm+activation module of timm with an activation that does something."""
        act = getattr(self.module, "act", None)
        is_active = isinstance(act, nn.Module) and not isinstance(act, nn.Identity)
        return is_active and hasattr(self.module, "drop")

    def map(self, direction: Direction) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,) of what is to be folded in `direction`."""
        if direction is Direction.ALPHA:
            return self._input_affine()
        if direction is Direction.AFFINE:
            return affine_of(self.module, channels_of(self.module))
        return self._whole_layer()

    def _whole_layer(self) -> tuple[Tensor, Tensor]:
        """s, t of y = s x + t: s = w / sqrt(running_var + eps), t = b - running_mean s; norms of
        the zoo give their own.
        """
        scale_and_shift = eval_affine(self.module)
        assert scale_and_shift is not None  # is_affine says so
        return scale_and_shift

    def _input_affine(self) -> tuple[Tensor, Tensor]:
        """alpha, shift of f(alpha x + shift), one value per channel."""

        def read(name: str | None, missing: float) -> Tensor:
            value = getattr(self.module, name).detach() if name else torch.tensor(missing)
            return value.to("cpu", torch.float64).reshape(-1).expand(channels_of(self.module))

        alpha, shift = map(read, curve_names(self.module), _IDENTITY)
        return alpha, shift

    def check(self, direction: Direction) -> None:
        """Raises NotFoldable where there is no such map, or it cannot leave the layer."""
        if self.module.training:
            raise NotFoldable("it is in training mode")
        if not direction.is_upstream and self.has_activation:
            raise NotFoldable("its own activation comes after it")
        if self.norm_type.stays:
            raise NotFoldable(self.norm_type.stays)
        recognized = recognize(self.module)
        if recognized is not None and not recognized.is_right:
            raise NotFoldable("its output is not weight * normalized + bias")
        if len(normalized_shape(self.module)) > 1:
            raise NotFoldable("its weight lies along several axes")
        scale, shift = self.map(direction)
        if not direction.removes_layer and bool((scale == 1).all()) and not shift.any():
            is_affine = direction is Direction.AFFINE
            values = "its weight is 1 and its bias 0" if is_affine else "its alpha is 1"
            raise NotFoldable(f"nothing to fold: {values}")

    def neutral_parameters(self, direction: Direction) -> dict[str, Tensor]:
        """The layer's own parameters once its map was folded in `direction`; they make the map the
        identity.
        """
        if direction is Direction.AFFINE and isinstance(self.module, Norm):
            return _neutral_of_zoo(self.module)
        if direction is Direction.AFFINE:
            return neutral_affine(self.module)
        neutral = zip(curve_names(self.module), _IDENTITY, strict=True)
        return {
            name: torch.full_like(getattr(self.module, name), value)
            for name, value in neutral
            if name
        }


def _neutral_of_zoo(norm: Norm) -> dict[str, Tensor]:
    """A norm of the zoo may hold its output affine in another form, so it is asked."""
    norm = copy.deepcopy(norm)
    norm.match_affine(torch.ones(norm.num_features), torch.zeros(norm.num_features))
    own = {name: getattr(norm, name) for name in ("weight", "bias")}
    return {name: value.detach() for name, value in own.items() if value is not None}

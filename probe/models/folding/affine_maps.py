"""The affine maps that a normalization layer holds and could give away, per channel and in float64
on the host.

`line`: the whole layer, where at evaluation it is y = s x + t (BatchNorm and its kin).  `trailing`:
its weight and bias, y = w z + b.
`leading`: what a dynamic curve does to its input, f(alpha x + shift).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from probe.models.folding.graph import Blocked
from probe.models.reading.layers import affine_of, channels_of, eval_affine
from probe.models.reading.norm_types import NormType
from probe.norms import Norm

LEADING = ("dyt", "dyt_2d", "derf", "derf_2d")
AFTERWARDS = {
    "weight": 1.0,
    "bias": 0.0,
    "alpha": 1.0,
    "shift": 0.0,
}  # parameters of a layer that gave its map away


@dataclass(frozen=True)
class NormLayer:
    """A normalization layer by its path."""

    path: str
    module: Any
    kind: NormType

    @property
    def axis(self) -> int:
        return -1 if self.kind.channels_last else 1

    @property
    def is_line(self) -> bool:
        return self.kind.affine(self.module)

    @property
    def has_activation(self) -> bool:
        """A norm+activation module of timm with an activation that does something."""
        act = getattr(self.module, "act", None)
        return (
            isinstance(act, nn.Module)
            and not isinstance(act, nn.Identity)
            and hasattr(self.module, "drop")
        )

    def line(self) -> tuple[Tensor, Tensor]:
        """s, t of y = s x + t: s = w / sqrt(running_var + eps), t = b - running_mean s; norms of
        the zoo give their own.
        """
        found = eval_affine(self.module)
        assert found is not None  # is_line says so
        return found

    def trailing(self) -> tuple[Tensor, Tensor]:
        """w, b of y = w z + b."""
        return affine_of(self.module, channels_of(self.module))

    def leading(self) -> tuple[Tensor, Tensor]:
        """alpha, shift of f(alpha x + shift), one value per channel."""

        def read(name: str, missing: float) -> Tensor:
            value = getattr(self.module, name, None)
            value = (
                value.detach().to("cpu", torch.float64)
                if isinstance(value, Tensor)
                else torch.full((1,), missing).double()
            )
            return value.reshape(-1).expand(channels_of(self.module))

        return read("alpha", 1.0), read("shift", 0.0)

    def map(self, direction: str) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,) of what is to move in `direction`: before, after, affine or
        alpha.
        """
        return {"alpha": self.leading, "affine": self.trailing}.get(direction, self.line)()

    def check(self, direction: str) -> None:
        """Raises Blocked where there is no such map, or it cannot leave the layer."""
        if self.module.training:
            raise Blocked("it is in training mode")
        if direction in ("after", "affine") and self.has_activation:
            raise Blocked("its own activation comes after it")
        if len(getattr(self.module, "normalized_shape", (1,))) > 1:
            raise Blocked("its weight lies along several axes")
        scale, shift = self.map(direction)
        if direction in ("affine", "alpha") and bool((scale == 1).all()) and not shift.any():
            raise Blocked(
                "nothing to fold: its "
                f"{'weight is 1 and its bias 0' if direction == 'affine' else 'alpha is 1'}"
            )

    def neutral(self, direction: str) -> dict[str, Tensor]:
        """The layer's own parameters once its map has moved in `direction`; they make the map the
        identity.
        """
        module = self.module
        if direction == "affine" and isinstance(module, Norm):
            module = copy.deepcopy(module)
            module.match_affine(torch.ones(module.num_features), torch.zeros(module.num_features))
            return {
                name: value.detach()
                for name in ("weight", "bias")
                if (value := getattr(module, name)) is not None
            }
        names = ("weight", "bias") if direction == "affine" else ("alpha", "shift")
        own = {name: getattr(module, name, None) for name in names}
        return {
            name: torch.full_like(value, AFTERWARDS[name])
            for name, value in own.items()
            if isinstance(value, Tensor)
        }

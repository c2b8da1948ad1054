"""Frozen records that travel between the parts: no torch, no I/O."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

GROUPS = 16  # image groups of the jackknife
STRATA = ("uniform", "prefix", "tail")
TOKENS = ("patch", "prefix")  # index = the `tokens` code of profile cells


@dataclass(frozen=True)
class Layer:
    """One normalization layer: a norm module, or one of its calls where a forward pass calls it
    several times.
    """

    name: str  # module path; `path#1` .. `path#k` where one forward pass calls the module k times
    module: str  # module path
    depth: int  # execution order, from 0
    kind: (
        str  # layer_norm, batch_norm, rms_norm, group_norm, instance_norm, layer_norm_2d, dyt, ...
    )
    channels: int
    eps: float | None
    # affine per channel by construction (BatchNorm with running statistics, LearnableScaler, ...)
    affine: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """What a capture keeps, and how the images are cut into batches. Engines deal the batches out,
    they never cut them.
    """

    images: int | None  # number of images; None for an iterable of unknown length
    samples: int = 512  # N uniform rows per layer
    tail: int = 1000  # M extreme elements per layer
    seed: int = 0
    batch_size: int = 8

    @property
    def prefix(self) -> int:
        """Extra rows of class, distillation and register tokens."""
        return self.samples // 8

    @property
    def tail_per_sign(self) -> int:
        return self.tail // 2

    @property
    def tail_per_channel(self) -> int:
        """Cap per channel and sign, so that one massive channel does not fill the tail."""
        return max(1, self.tail // 40)


@dataclass(frozen=True)
class Fit:
    """A family fitted to one map: `normalized ~ gamma * f(alpha * x + shift) + beta`.

    alpha is None unless `status` is `curved`; slope is that of the map at the centre (for status
    `linear`: of the line). Intervals are 95 % delete-one-group jackknife intervals, None under 8
    occupied groups.
    """

    family: str
    scope: str  # layer, channel
    weighting: str  # population, range
    status: (
        str  # curved, linear, superlinear, step, constant, too_few, not_finite, affine, not_called
    )
    tokens: str = "all"  # all, patch, prefix
    alpha: float | None = None
    shift: float | None = None  # only families with a shift
    gamma: float | None = None
    beta: float | None = None
    slope: float | None = None
    r2: float | None = None
    r2_ceiling: float | None = None
    linear_r2: float | None = None
    gain: float | None = None  # r2 - linear_r2
    gain_low: float | None = None
    gain_high: float | None = None
    rmse: float | None = None
    alpha_low: float | None = None
    alpha_high: float | None = None
    best: bool = False  # tied with the best family (paired jackknife on R2 differences)
    groups: int = 0  # occupied jackknife groups
    count: int = 0  # elements

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def finite_or_none(value: float | None) -> float | None:
    """JSON has no NaN: null instead."""
    return value if value is not None and math.isfinite(value) else None


__all__ = ["GROUPS", "STRATA", "TOKENS", "Fit", "Layer", "Plan", "finite_or_none"]

"""Alpha, weight and bias of one replaced layer by weighted least squares.

    sum over tokens t of v_t |y_t - (weight * f(alpha x_t) + bias)|^2

x is what reaches the layer in the converted network, y what the original gives out at the same
token, v how much the outputs of the network depend on it there. For each alpha of a short list
weight and bias follow in closed form, from sums over the batches.

What is fitted is the rest y - (weight f + bias) of the values that are there: a layer that is exact
already stays as it is, to the last digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from probe.curves import StandIn
from probe.jobs.converting.paired import Pair

SCALES = (1.0, 0.5, 0.71, 0.84, 1.19, 1.41, 2.0)  # factors of alpha that are tried, 1 first
RIDGE = 1e-6  # of the mean square of f: a channel where f is constant keeps its weight


@dataclass
class Sums:
    """Over tokens, per channel (C,) float64: v, v f, v f^2, v r, v f r, v r^2, with r the rest."""

    v: Any = 0.0
    f: Any = 0.0
    ff: Any = 0.0
    r: Any = 0.0
    fr: Any = 0.0
    rr: Any = 0.0

    def add(self, f: Tensor, r: Tensor, v: Tensor) -> None:
        """f, r (tokens, C), v (tokens, 1)."""
        vf, vr = v * f, v * r
        self.v = self.v + v.sum(dtype=torch.float64)
        for name, values in (("f", vf), ("ff", vf * f), ("r", vr), ("fr", vr * f), ("rr", vr * r)):
            setattr(self, name, getattr(self, name) + values.sum(0, dtype=torch.float64))

    def solved(self) -> tuple[Tensor, Tensor, float]:
        """What to add to weight and bias, and the sum of squares that is left."""
        mean_f, mean_r = self.f / self.v, self.r / self.v
        variance = (self.ff / self.v - mean_f**2).clamp(min=0)
        covariance = self.fr / self.v - mean_f * mean_r
        slope = covariance / (variance + RIDGE * self.ff / self.v).clamp(min=1e-300)
        offset = mean_r - slope * mean_f
        left = self.rr / self.v - mean_r**2 - 2 * slope * covariance + slope**2 * variance
        return slope, offset, float(left.clamp(min=0).sum())

    @property
    def error(self) -> float:
        """The sum of squares as the values are."""
        return float((self.rr / self.v).sum())


class Refit:
    """The refit of one norm, which stands as `curve`:

    refit = Refit(norm, curve)
    refit.read(pairs)
    curve = refit.move(1.0)  # to the solution; 0.5: halfway, alpha as it is; 0: back
    """

    def __init__(self, norm: Any, curve: StandIn, scales: Sequence[float] = SCALES) -> None:
        self.norm, self.curve = norm, curve
        self._sums = {scale: Sums() for scale in scales}
        self._size = 0.0
        self._before = values_of(norm)
        self._best = 1.0

    def read(self, pairs: Iterable[Pair]) -> None:
        """Finds the solution; the norm stays as it is."""
        for pair in pairs:
            y, v = _rows(pair.target, self.norm.axis), _rows(pair.weight, self.norm.axis)
            self._size += float((v * y * y).sum(dtype=torch.float64))
            for scale, sums in self._sums.items():
                self._scale(scale)
                with torch.no_grad():
                    f = self.norm.normalized(pair.inputs)
                    r = pair.target - self.norm.scaled(f)
                sums.add(_rows(f, self.norm.axis), _rows(r, self.norm.axis), v)
            self.move(0.0)
        self._best = min(self._sums, key=lambda scale: self._sums[scale].solved()[2])

    @property
    def relative_error(self) -> float:
        """rms of the rest over rms of the target, both weighted, as the values are."""
        left = self._sums[1.0].error * float(self._sums[1.0].v)
        return float((left / self._size) ** 0.5) if self._size else 0.0

    @property
    def is_finite(self) -> bool:
        self.move(1.0)
        finite = all(bool(torch.isfinite(value).all()) for value in values_of(self.norm).values())
        self.move(0.0)
        return finite

    def move(self, share: float) -> StandIn:
        """Parameters on the way from the old values (0) to the solution (1); the curve there, its
        weight and bias those of the beginning.
        """
        scale = self._best if share == 1 else 1.0
        self._scale(scale)
        weight, bias, _ = self._sums[scale].solved() if share else (0.0, 0.0, 0.0)
        with torch.no_grad():
            self.norm.weight += share * weight
            self.norm.bias += share * bias
        return replace(self.curve, alpha=self.curve.alpha * scale)

    def _scale(self, scale: float) -> None:
        """Old weight and bias, alpha so many times the old one."""
        put_values(self.norm, self._before)
        if scale != 1:
            weight, bias = (self._before[name].double() for name in ("weight", "bias"))
            alpha, shift = self.curve.alpha * scale, self.curve.shift
            self.norm.init_from_curve(
                self.curve.family, alpha=alpha, shift=shift, weight=weight, bias=bias
            )


def values_of(norm: Any) -> dict[str, Tensor]:
    """A copy of the parameters of a norm."""
    return {name: value.detach().clone() for name, value in norm.named_parameters()}


def put_values(norm: Any, values: Mapping[str, Tensor]) -> None:
    """Parameters as `values_of` gave them."""
    with torch.no_grad():
        for name, value in norm.named_parameters():
            value.copy_(values[name])


def _rows(values: Tensor, axis: int) -> Tensor:
    """(tokens, C) of a tensor with its channels on `axis`."""
    return values.movedim(axis, -1).flatten(0, -2)

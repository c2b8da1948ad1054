"""What may be said of a fit: its jackknife interval, its status, and which families are tied with
the best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from probe.records import Fit, Status

Floats = NDArray[np.float64]
Interval = tuple[float | None, float | None]

MIN_GROUPS = 8  # no interval under so many occupied image groups
MIN_GAIN = 1e-3  # of R2 over the line, to be called curved
MIN_CONVEX = 2e-3  # of r2_ceiling over the line, to be called superlinear
TIE = 1e-6  # R2 difference that counts as none
AT_BOUND = 0.05  # distance in log alpha
NO_INTERVAL: Interval = (None, None)


@cache
def _quantile(k: int) -> float:
    return float(special.stdtrit(k - 1, 0.975))


def half_width(replicates: Floats) -> float | None:
    """Half of the 95 % interval of the delete-one-group jackknife, t with K - 1 degrees of freedom;
    None under 8 replicates.

    se^2 = (K - 1)/K * sum over groups of (theta_(g) - mean theta_(.))^2.
    """
    k = len(replicates)
    if k < MIN_GROUPS or not np.isfinite(replicates).all():
        return None
    deviation = replicates - replicates.mean()
    return _quantile(k) * math.sqrt((k - 1) / k * float(deviation @ deviation))


def interval(estimate: float, replicates: Floats) -> Interval:
    """The 95 % jackknife interval around an estimate, or (None, None)."""
    half = half_width(replicates)
    return NO_INTERVAL if half is None else (estimate - half, estimate + half)


@dataclass(frozen=True)
class Evidence:
    """What the status of a curve rests on. `convexity` is the R2 that the best element-wise curve
    has over the line.
    """

    gain: float
    gain_low: float | None
    convexity: float
    convexity_low: float | None
    at_lower: bool
    at_upper: bool


def status_of(evidence: Evidence) -> Status:
    """superlinear, linear, step or curved."""
    if evidence.at_lower:
        convex = _holds(evidence.convexity, MIN_CONVEX, evidence.convexity_low)
        return Status.SUPERLINEAR if convex else Status.LINEAR
    if not _holds(evidence.gain, MIN_GAIN, evidence.gain_low):
        return Status.LINEAR
    return Status.STEP if evidence.at_upper else Status.CURVED


def _holds(value: float, least: float, low: float | None) -> bool:
    """Large enough, and its interval excludes 0; without an interval the value alone decides."""
    return value >= least and (low is None or low > 0)


def tied_with_best(r2: Sequence[float], replicates: Sequence[Floats]) -> list[bool]:
    """Which families do as well as the best: the paired interval of the R2 difference reaches 0, or
    it is under 1e-6.
    """
    if not r2:
        return []
    best = int(np.argmax(r2))
    tied = []
    for value, replicate in zip(r2, replicates, strict=True):
        behind = r2[best] - value
        half = (
            half_width(replicates[best] - replicate)
            if len(replicate) == len(replicates[best])
            else None
        )
        tied.append(behind <= max(TIE, half or 0.0))
    return tied


def without_curve(
    status: Status,
    family: str,
    weighting: str = "population",
    scope: str = "layer",
    tokens: str = "all",
    count: int = 0,
) -> Fit:
    """A row that carries a status and no curve: one that is not fitted, or affine."""
    return Fit(
        family=family, scope=scope, weighting=weighting, status=status, tokens=tokens, count=count
    )

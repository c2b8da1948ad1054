"""What may be said of a fit: intervals, statuses, and which families cannot be told from the best.

Intervals are delete-one-group jackknife intervals over the images: elements of one image are not
independent. Those of alpha and of the gain are taken on a log scale, on which their estimates are
nearly symmetric: on the raw scale the interval of a gain covers far less than it says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from probe.curves.families import Family
from probe.records import MIN_GROUPS, Fit, Status

Floats = NDArray[np.float64]
Interval = tuple[float | None, float | None]

MIN_GAIN = 1e-3  # of R2 over the line; a map with less counts as straight
ESTABLISHED = 5e-4  # what the lower bound of the gain of a curve has to reach
GAIN_FLOOR = 1e-6  # a smaller gain is none: bins and float32 may leave as much of a line
# Smaller gains count as this one, which has a logarithm. The replicates keep the bin centres of the
# whole map, which moves the gain of each by up to 1e-5.
LOG_FLOOR = 2e-5
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


def gain_interval(gain: float, replicates: Floats) -> Interval:
    """The 95 % interval of a gain, from that of its logarithm; a lower bound at the floor is 0."""
    half = half_width(np.log(np.maximum(replicates, LOG_FLOOR)))
    if half is None:
        return NO_INTERVAL
    low, high = (max(gain, LOG_FLOOR) * math.exp(min(step, 700.0)) for step in (-half, half))
    return (low if low > LOG_FLOOR else min(gain, 0.0)), min(high, 1.0)


@dataclass(frozen=True)
class Evidence:
    """What the status of a curve rests on. `convexity` is the R2 that the best element-wise curve
    has over the line.
    """

    gain: float
    gain_low: float | None
    gain_high: float | None
    convexity: float
    convexity_low: float | None
    at_lower: bool
    at_upper: bool


def status_of(evidence: Evidence) -> Status:
    """What is known, not what is likely: see docs/definitions.md.

    curved (or step, where alpha is at its upper bound): the gain is at least 0.001 and its lower
    bound at least half of that. linear: the upper bound is under 0.001. superlinear: alpha is at
    its lower bound, and another curve than a saturating one is better than the line. Without an
    interval, or between the bounds, nothing is decided.
    """
    low, high = evidence.gain_low, evidence.gain_high
    if low is None or high is None:
        return Status.UNDETERMINED
    if evidence.at_lower:
        bent, sure = evidence.convexity, evidence.convexity_low
        if bent >= MIN_CONVEX and sure is not None and sure > 0:
            return Status.SUPERLINEAR
    elif evidence.gain >= MIN_GAIN and low >= ESTABLISHED:
        return Status.STEP if evidence.at_upper else Status.CURVED
    return Status.LINEAR if high < MIN_GAIN else Status.UNDETERMINED


def sources_to_decide(
    gain: float | None, gain_low: float | None, gain_high: float | None, sources: int
) -> int | None:
    """About how many independent images would tell a curve from a line, were the gain as estimated.

    The interval of log gain shrinks with the root of their number. None where there is no interval
    to go by.
    """
    if gain is None or gain_low is None or gain_high is None or sources < 1:
        return None
    estimate = max(gain, LOG_FLOOR)
    half = math.log(max(gain_high, estimate) / estimate)
    bound = ESTABLISHED if estimate >= MIN_GAIN else MIN_GAIN
    margin = abs(math.log(estimate / bound))
    return math.ceil(sources * (half / margin) ** 2) if margin > 0 else None


def is_mixture(layer: Fit, channel: Fit | None) -> bool:
    """Does a layer bend although its channels do not?

    The gain of scope `layer` is established, that of scope `channel` is not, and its interval lies
    below the former. The pooled curve is then the spread of lines of different channels. So is a
    layer that bends in another way (superlinear) where, besides, the lines of its channels explain
    more than any one curve for all could.
    """
    shaped = (Status.CURVED, Status.STEP)
    if channel is None or channel.gain_high is None or channel.status in shaped:
        return False
    if layer.status == Status.SUPERLINEAR:
        ceiling, lines = layer.r2_ceiling or 1.0, channel.linear_r2 or 0.0
        return lines > ceiling and channel.gain_high < ceiling - (layer.linear_r2 or 0.0)
    return layer.status in shaped and channel.gain_high < (layer.gain or 0.0)


def nested(family: Family, other: Family) -> bool:
    """Is one of two families a special case of the other? A line is one of every curve."""
    return "linear" in (family.name, other.name) or family.jet is other.jet


def tied_with_best(
    families: Sequence[Family],
    missed: Sequence[float],
    replicates: Sequence[Floats],
) -> list[bool]:
    """Which families cannot be told from the best one, by the paired interval of a log ratio.

    missed: what each misses of the ceiling, ceiling - R2, of the whole map; replicates: the same of
    each replicate. The best itself is not in the list, nor is a family nested with it: that one
    contains the other and cannot fit less well. Without an interval only equal ones are tied.
    """
    if not families:
        return []
    best = int(np.argmin(missed))
    return [
        k != best and not nested(family, families[best]) and _alike(missed, replicates, k, best)
        for k, family in enumerate(families)
    ]


def _alike(missed: Sequence[float], replicates: Sequence[Floats], k: int, best: int) -> bool:
    if missed[k] - missed[best] <= TIE:
        return True
    if not len(replicates[k]) or len(replicates[k]) != len(replicates[best]):
        return False
    log_ratio = math.log(max(missed[k], TIE) / max(missed[best], TIE))
    half = half_width(np.log(np.maximum(replicates[k], TIE) / np.maximum(replicates[best], TIE)))
    return half is not None and log_ratio <= half


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

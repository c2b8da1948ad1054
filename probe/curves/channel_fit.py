"""Scope `channel`: one alpha per layer, gamma_c and beta_c per channel: what a DyT layer can
represent.

    minimize over alpha, gamma_c, beta_c   sum_c sum_n (z_nc - gamma_c f(alpha x_nc) - beta_c)^2

from sample rows x, z (N, C) float32. R2 of the layer is pooled: that sum over the sum of squares
about the one mean of all elements, so the offsets of the channels count as explained; `linear_r2`
is that of a line per channel, on the same total. R2 of a channel is about the channel's own mean.
gamma, beta and slope of a Fit are medians over channels. There is no ceiling in this scope, so
`superlinear` does not occur.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probe.curves import varpro
from probe.curves.channel_sums import (
    ClosedForm,
    Rows,
    Sums,
    closed_form,
    descent,
    gather,
    gather_totals,
)
from probe.curves.families import FAMILIES, Family, families_of
from probe.curves.selection import (
    AT_BOUND,
    GAIN_FLOOR,
    Evidence,
    gain_interval,
    half_width,
    status_of,
    tied_with_best,
    without_curve,
)
from probe.errors import UsageError
from probe.records import Fit, Status, finite_or_none

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

# what a layer of the zoo can represent without a shift, and the line
CHANNEL_FAMILIES = ("linear", "tanh", "erf", "isru")
MIN_ROWS = 4  # two parameters per channel, and alpha
MIN_COUNT = 10
_RESOLUTION = 1e-6  # of the largest magnitude: less spread than this is rounding of float32
_START_ROWS = 96  # rows of the search for a start
_STARTS = 28
_TOLERANCE = 1e-4  # of log alpha: after a step of Newton that is shorter, 1e-8 are left
_TINY = 1e-300


@dataclass(frozen=True)
class ChannelScope:
    """`fits` holds one Fit per family with scope `channel`; gamma, beta and r2 of each family by
    channel (C,).

    A family without alpha (no optimum between the bounds of the search) has the line of each
    channel: gamma is its slope, beta its intercept.
    """

    fits: list[Fit]
    gamma: dict[str, Floats]
    beta: dict[str, Floats]
    r2: dict[str, Floats]


@dataclass(frozen=True)
class _Curve:
    """A family at its alpha: parameters (C,), pooled R2 of the total and of the replicates."""

    alpha: float
    gamma: Floats
    beta: Floats
    channel_r2: Floats
    closed: ClosedForm
    r2: float
    replicate_r2: Floats
    replicate_log_alpha: Floats


def fit_channels(
    x: ArrayLike, z: ArrayLike, image_groups: ArrayLike, families: Sequence[str] = CHANNEL_FAMILIES
) -> ChannelScope:
    """Fit families without a shift to rows x, z (N, C) of images in groups (N,). No curve: a
    status, no error.
    """
    chosen = families_of(families)
    for family in chosen:
        if family.shifted:
            raise UsageError(
                f"family {family.name!r} has no channel scope; families without a shift: "
                f"{', '.join(_unshifted())}"
            )
    inputs, values = np.asarray(x, dtype=np.float32), np.asarray(z, dtype=np.float32)
    failed = _failure(inputs, values)
    if failed is not None:
        return _failed(failed, inputs, chosen)
    rows, line, max_abs = _with_line(inputs, values, image_groups)
    return _selected(
        rows, line, {family: _best_curve(rows, family, line, max_abs) for family in chosen}, max_abs
    )


def _with_line(x: Singles, z: Singles, image_groups: ArrayLike) -> tuple[Rows, _Curve, float]:
    """The rows by image group, the line of each channel, and the largest |x|."""
    rows = Rows.of(x, z, np.unique(np.asarray(image_groups), return_inverse=True)[1])
    max_abs = float(np.abs(x).max())
    line = _curve(
        rows,
        FAMILIES["linear"],
        gather(rows, FAMILIES["linear"], -math.log(max_abs), derivatives=False),
        1 / max_abs,
    )
    return rows, dataclasses.replace(line, gamma=line.gamma / max_abs), max_abs


def _unshifted() -> list[str]:
    return [family.name for family in FAMILIES.values() if not family.shifted]


def _failure(x: Singles, z: Singles) -> Status | None:
    """too_few, not_finite or constant; None for rows that can be fitted."""
    if len(x) < MIN_ROWS or x.size < MIN_COUNT:
        return Status.TOO_FEW
    if not (np.isfinite(x).all() and np.isfinite(z).all()):
        return Status.NOT_FINITE
    with np.errstate(over="ignore"):  # a range beyond float32 is one
        varies = all(np.ptp(each) > _RESOLUTION * np.abs(each).max() for each in (x, z))
    return None if varies else Status.CONSTANT


def _failed(status: Status, x: Singles, families: Sequence[Family]) -> ChannelScope:
    nothing = {family.name: np.zeros(x.shape[1] if x.ndim == 2 else 0) for family in families}
    fits = [without_curve(status, name, scope="channel", count=x.size) for name in nothing]
    return ChannelScope(fits, nothing, nothing, nothing)


def _curve(rows: Rows, family: Family, sums: Sums, alpha: float) -> _Curve:
    """The closed form at one alpha. A replicate takes one Newton step from there, which sees its
    own gradient and curvature.
    """
    total, left_out = sums.total(), sums.left_out()
    closed, refits = closed_form(rows, total), None
    moved, r2 = np.zeros(0), np.zeros(0)
    if len(sums.n) > 1:
        refits = closed_form(rows, left_out)
        moved, r2 = np.zeros(len(sums.n)), refits.r2
        if len(sums.values) > 5:
            slope, curvature = descent(left_out, refits.gamma)
            steep = curvature > 0
            moved = np.where(steep, -slope / np.where(steep, curvature, 1), 0)
            r2 = r2 - moved * slope / np.maximum(refits.pooled_tss, _TINY)
    origin = family.value((rows.center * np.float32(alpha)).astype(np.float64))
    gamma = closed.gamma[0]
    beta = rows.mean_z - gamma * (origin + closed.mean_d[0])
    return _Curve(
        alpha,
        gamma,
        beta,
        closed.channel_r2[0],
        closed,
        float(closed.r2[0]),
        r2,
        moved + math.log(alpha),
    )


def _best_curve(rows: Rows, family: Family, line: _Curve, max_abs: float) -> _Curve:
    if family.name == "linear":
        return line
    lower, upper = (float(each[0]) for each in varpro.bounds(family, max_abs))
    t = _search(rows, family, lower, upper)
    return _curve(rows, family, gather(rows, family, t), math.exp(t))


def _search(rows: Rows, family: Family, lower: float, upper: float) -> float:
    """log alpha of the least loss: the best cell of a grid on some of the rows, then Newton steps
    between its neighbours.
    """
    grid, few = np.linspace(lower, upper, _STARTS), rows.thinned(_START_ROWS)
    k = int(closed_form(rows, gather_totals(few, family, grid)).sse.sum(axis=1).argmin())
    t, low, high = float(grid[k]), float(grid[max(k - 2, 0)]), float(grid[min(k + 2, _STARTS - 1)])
    for _ in range(20):
        sums = gather(rows, family, t).total()
        slope, curvature = (float(each[0]) for each in descent(sums, closed_form(rows, sums).gamma))
        low, high = (low, t) if slope > 0 else (t, high)
        new = t - slope / curvature if curvature > 0 else math.inf
        if not low < new < high:
            new = (low + high) / 2
        if abs(new - t) < _TOLERANCE:
            return new
        t = new
    return t


def _selected(
    rows: Rows, line: _Curve, curves: dict[Family, _Curve], max_abs: float
) -> ChannelScope:
    """The rows of the table, and the parameters that go with them."""
    fits = [_fit(rows, family, line, curve, max_abs) for family, curve in curves.items()]
    # this scope knows no ceiling, so what a family misses is what it leaves of the variance
    missed = [1 - curve.r2 for curve in curves.values()]
    tied = tied_with_best(list(curves), missed, [1 - each.replicate_r2 for each in curves.values()])
    kept = [
        (fit.family, line if fit.alpha is None else curve)
        for fit, curve in zip(fits, curves.values(), strict=True)
    ]
    return ChannelScope(
        fits=[
            dataclasses.replace(fit, best=k == int(np.argmin(missed)), tied=flag)
            for k, (fit, flag) in enumerate(zip(fits, tied, strict=True))
        ],
        gamma={name: curve.gamma for name, curve in kept},
        beta={name: curve.beta for name, curve in kept},
        r2={name: curve.channel_r2 for name, curve in kept},
    )


def _fit(rows: Rows, family: Family, line: _Curve, curve: _Curve, max_abs: float) -> Fit:
    row = Fit(
        family=family.name,
        scope="channel",
        weighting="population",
        status=Status.LINEAR,
        beta=finite_or_none(float(np.median(line.beta))),
        slope=finite_or_none(float(np.median(line.gamma))),
        r2=finite_or_none(curve.r2),
        linear_r2=finite_or_none(line.r2),
        gain=finite_or_none(curve.r2 - line.r2),
        rmse=finite_or_none(math.sqrt(float(curve.closed.sse.sum()) / rows.x.size)),
        groups=len(rows.blocks),
        count=rows.x.size,
    )
    return row if family.name == "linear" else _judged(row, family, line, curve, max_abs)


def _judged(row: Fit, family: Family, line: _Curve, curve: _Curve, max_abs: float) -> Fit:
    """The row of a curve: its status, and alpha, gamma, beta where the search has an optimum."""
    gain = curve.r2 - line.r2
    low, high = gain_interval(gain, curve.replicate_r2 - line.replicate_r2)
    lower, upper = (float(bound[0]) for bound in varpro.bounds(family, max_abs))
    t = math.log(curve.alpha)
    at_lower, at_upper = t <= lower + AT_BOUND or gain <= GAIN_FLOOR, t >= upper - AT_BOUND
    status = status_of(Evidence(gain, low, high, 0.0, None, at_lower, at_upper))
    row = dataclasses.replace(row, status=status, gain_low=low, gain_high=high)
    if at_lower or at_upper:
        return row
    half, gamma = half_width(curve.replicate_log_alpha), float(np.median(curve.gamma))
    return dataclasses.replace(
        row,
        alpha=curve.alpha,
        gamma=finite_or_none(gamma),
        beta=finite_or_none(float(np.median(curve.beta))),
        slope=finite_or_none(gamma * curve.alpha * family.slope_at_zero),
        alpha_low=None if half is None else math.exp(max(t - half, lower)),
        alpha_high=None if half is None else math.exp(min(t + half, upper)),
    )

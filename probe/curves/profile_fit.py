"""Scope `layer`: one gamma, beta, alpha (and shift) for a whole layer, from its map in bins.

    R2 = 1 - sum (z - gamma f(alpha x + shift) - beta)^2 / sum (z - mean z)^2      over all elements

The part of the sum inside the bins is known exactly from the sums of squares, so R2 and RMSE are
those of the population. Every curve with an optimum between the bounds of the search is told with
its alpha, whatever its status; a row without one keeps r2, rmse and gain of the family's best
curve, and gives slope and beta of the line.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probe.curves import varpro
from probe.curves.binned import BinnedMap
from probe.curves.families import FAMILIES, Family, families_of, family_of
from probe.curves.points import Points, Problem, problem
from probe.curves.selection import (
    AT_BOUND,
    GAIN_FLOOR,
    NO_INTERVAL,
    Evidence,
    Interval,
    gain_interval,
    half_width,
    interval,
    status_of,
    tied_with_best,
    without_curve,
)
from probe.errors import unknown
from probe.records import Fit, Status, finite_or_none

Floats = NDArray[np.float64]

DEFAULT = tuple(FAMILIES)
WEIGHTINGS = ("population", "range")
MIN_COUNT = 10  # elements
_RESOLUTION = 1e-6  # of the largest magnitude: less spread than this is rounding of float32
FAR = 0.9  # of log alpha, about three cells of the grid: another basin
_REFIT_TOLERANCE = 1e-6  # of log alpha, in the replicates


@dataclass(frozen=True)
class Line:
    """The straight line through B maps, each (B,)."""

    slope: Floats
    intercept: Floats
    r2: Floats


@dataclass(frozen=True)
class Case:
    """One layer under one weighting, with the line through it."""

    problem: Problem
    weighting: str
    tokens: str
    line: Line
    replicate_lines: Line
    ceiling: float
    convexity: float  # ceiling less what chance gives so many bins, over the line
    convexity_low: float | None


def fit_profile(
    binned: BinnedMap,
    families: Sequence[str] = DEFAULT,
    weightings: Sequence[str] = WEIGHTINGS,
    jackknife: bool = True,
) -> list[Fit]:
    """Fit every family under every weighting: one Fit each, in that order. A map without a curve
    gives a status, no error.
    """
    chosen = families_of(families)
    for weighting in weightings:
        if weighting not in WEIGHTINGS:
            raise unknown("weighting", weighting, WEIGHTINGS)
    fits: list[Fit] = []
    for weighting in weightings:
        failed = _failure(binned)
        if failed is None:
            case = _case(binned, weighting, jackknife)
            pairs = [_fit(case, family) for family in chosen]
            fits += _ranked(case, [fit for fit, _ in pairs], [r2 for _, r2 in pairs])
        else:
            count = _finite_count(binned)
            fits += [
                without_curve(failed, family.name, weighting, tokens=binned.tokens, count=count)
                for family in chosen
            ]
    return fits


def _finite_count(binned: BinnedMap) -> int:
    count = float(binned.count.sum())
    return int(count) if math.isfinite(count) else 0


def _failure(binned: BinnedMap) -> Status | None:
    """not_finite, too_few or constant; None for a map that can be fitted."""
    sums = np.stack(
        [each.sum(axis=0) for each in (binned.count, binned.sum_x, binned.sum_z, binned.sum_zz)]
    )
    if not np.isfinite(sums).all():
        return Status.NOT_FINITE
    count, _, sum_z, sum_zz = sums
    n = count.sum()
    if n < MIN_COUNT:
        return Status.TOO_FEW
    if not (math.isfinite(binned.min_x) and math.isfinite(binned.max_x)):
        return Status.NOT_FINITE
    square_z = sum_zz.sum() / n
    spread_z = square_z - (sum_z.sum() / n) ** 2
    if (
        binned.max_x - binned.min_x <= _RESOLUTION * binned.max_abs
        or spread_z <= _RESOLUTION**2 * square_z
    ):
        return Status.CONSTANT
    return Status.TOO_FEW if len(binned.bin) < 2 else None


def _case(binned: BinnedMap, weighting: str, jackknife: bool) -> Case:
    task = problem(binned, weighting, jackknife)
    line = _line(task.total)
    between, tss = float(task.total.between[0]), float(task.total.tss[0])
    refits, refit_lines = task.replicates, _line(task.replicates)
    convexity = (between - task.chance) / tss - float(line.r2[0])
    low = interval(
        convexity, refits.between / np.maximum(refits.tss, np.finfo(float).tiny) - refit_lines.r2
    )[0]
    return Case(
        task, weighting, binned.tokens, line, refit_lines, min(between / tss, 1.0), convexity, low
    )


def _line(points: Points) -> Line:
    """Closed form, for each row of the points."""
    mean_x, mean_z = points.w @ points.x, np.vecdot(points.w, points.z)
    x = points.x - mean_x[:, None]
    variance = np.maximum(np.vecdot(points.w * x, x), np.finfo(float).tiny)
    shared = np.vecdot(points.w * x, points.z)
    slope = shared / variance
    return Line(
        slope,
        mean_z - slope * mean_x,
        np.minimum(shared * slope / np.maximum(points.tss, np.finfo(float).tiny), 1.0),
    )


def _r2(points: Points, solution: varpro.Solution) -> Floats:
    tss = np.maximum(points.tss, np.finfo(float).tiny)
    return np.minimum((points.between - solution.loss) / tss, 1.0)


def _fit(case: Case, family: Family) -> tuple[Fit, Floats]:
    """The fit of one family, and R2 of its replicates."""
    linear_r2 = float(case.line.r2[0])
    if family.name == "linear":
        return _row(case, family, Status.LINEAR, linear_r2), case.replicate_lines.r2
    if case.problem.occupied < (5 if family.shifted else 4):
        return _row(case, family, Status.TOO_FEW, linear_r2), case.replicate_lines.r2
    best, refits = solve_case(case.problem, family)
    r2, r2_refits = float(_r2(case.problem.total, best)[0]), _r2(case.problem.replicates, refits)
    gain = r2 - linear_r2
    low, high = gain_interval(gain, r2_refits - case.replicate_lines.r2)
    lower, upper = varpro.bounds(family, case.problem.max_abs)
    t = float(best.theta[0, 0])
    evidence = Evidence(
        gain=gain,
        gain_low=low,
        gain_high=high,
        convexity=case.convexity,
        convexity_low=case.convexity_low,
        at_lower=t <= lower[0] + AT_BOUND or gain <= GAIN_FLOOR,
        at_upper=t >= upper[0] - AT_BOUND,
    )
    row = _row(case, family, status_of(evidence), r2, (low, high))
    if evidence.at_lower or evidence.at_upper:
        return row, r2_refits
    half = half_width(refits.theta[:, 0])
    alpha_interval = (
        NO_INTERVAL
        if half is None
        else (math.exp(max(t - half, lower[0])), math.exp(min(t + half, upper[0])))
    )
    return _with_curve(row, family, best, alpha_interval), r2_refits


def _row(
    case: Case, family: Family, status: Status, r2: float, gain_bounds: Interval = NO_INTERVAL
) -> Fit:
    """What every status reports."""
    linear_r2 = float(case.line.r2[0])
    return Fit(
        family=family.name,
        scope="layer",
        weighting=case.weighting,
        status=status,
        tokens=case.tokens,
        beta=finite_or_none(float(case.line.intercept[0])),
        slope=finite_or_none(float(case.line.slope[0])),
        r2=finite_or_none(r2),
        r2_ceiling=finite_or_none(case.ceiling),
        linear_r2=finite_or_none(linear_r2),
        gain=finite_or_none(r2 - linear_r2),
        gain_low=finite_or_none(gain_bounds[0]),
        gain_high=finite_or_none(gain_bounds[1]),
        rmse=finite_or_none(math.sqrt(max(0.0, (1 - r2) * float(case.problem.total.tss[0])))),
        groups=case.problem.groups,
        count=case.problem.count,
    )


def _with_curve(row: Fit, family: Family, best: varpro.Solution, alpha_interval: Interval) -> Fit:
    """The row with its curve: slope = gamma * alpha * f'(shift), that of the map at x = 0."""
    alpha, gamma = math.exp(best.theta[0, 0]), float(best.gamma[0])
    shift = float(best.theta[0, 1]) if family.shifted else None
    steep = float(family.derivative(np.array(shift or 0.0)))
    return dataclasses.replace(
        row,
        alpha=alpha,
        shift=shift,
        gamma=finite_or_none(gamma),
        beta=finite_or_none(float(best.beta[0])),
        slope=finite_or_none(gamma * alpha * steep),
        alpha_low=alpha_interval[0],
        alpha_high=alpha_interval[1],
    )


def solve_case(task: Problem, family: Family) -> tuple[varpro.Solution, varpro.Solution]:
    """The best curve of the total, and that of each replicate.

    The total starts from the deepest minima of the grid, a replicate from the curve of the total
    and, where its own grid has another best cell, from that one as well.
    """
    if family.optimum is not None:
        return _at_optimum(family, task.total, task), _at_optimum(family, task.replicates, task)
    starts = varpro.grid(family, task.max_abs)
    loss = varpro.grid_loss(family, starts, task.coarse)
    flat = starts.reshape(-1, starts.shape[-1])
    cells = varpro.lowest_cells(loss[0])
    owner = np.zeros(len(cells), dtype=np.intp)
    best = varpro.solve(family, task.total, flat[cells], owner, task.max_abs)
    replicates = len(task.replicates.w)
    if not replicates:
        empty = np.zeros(0)
        return best, varpro.Solution(np.zeros((0, flat.shape[1])), empty, empty, empty)
    own = flat[loss[1:].reshape(replicates, -1).argmin(axis=1)]
    far = np.flatnonzero(np.abs(own - best.theta)[:, 0] > FAR)
    owner = np.concatenate([np.arange(replicates), far])
    begin = np.concatenate([np.repeat(best.theta, replicates, axis=0), own[far]])
    return best, varpro.solve(family, task.replicates, begin, owner, task.max_abs, _REFIT_TOLERANCE)


def _at_optimum(family: Family, points: Points, task: Problem) -> varpro.Solution:
    """The best curve of each map of a family that knows where its optimum is."""
    assert family.optimum is not None
    (lower,), (upper,) = varpro.bounds(family, task.max_abs)
    theta = family.optimum(points.x, points.w, points.z, lower, upper)[:, None]
    state = varpro.evaluate(family, theta, points.x, points.w, points.z)
    return varpro.Solution(theta, state.loss, state.gamma, state.beta)


def _ranked(case: Case, fits: list[Fit], r2: list[Floats]) -> list[Fit]:
    """The fits with `best` and `tied` set, of those that have enough bins."""
    usable = [
        k for k, fit in enumerate(fits) if fit.r2 is not None and fit.status != Status.TOO_FEW
    ]
    if not usable:
        return fits
    ceilings = case.problem.replicates.between / np.maximum(
        case.problem.replicates.tss, np.finfo(float).tiny
    )
    missed = [case.ceiling - (fits[k].r2 or 0.0) for k in usable]
    tied = tied_with_best(
        [family_of(fits[k].family) for k in usable], missed, [ceilings - r2[k] for k in usable]
    )
    ranked = list(fits)
    for k, flag in zip(usable, tied, strict=True):
        ranked[k] = dataclasses.replace(fits[k], best=k == usable[np.argmin(missed)], tied=flag)
    return ranked

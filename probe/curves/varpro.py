"""Variable projection: z ~ gamma * f(alpha * x + shift) + beta, with gamma and beta in closed form.

What is left is a search over theta = (log alpha) or (log alpha, shift) in a box:

    S(theta) = min over gamma, beta of sum_k w_k (z_k - gamma f_k - beta)^2 / 2
    f_k = f(exp(theta_0) x_k + theta_1)
    dS/dtheta_i = -gamma sum w r f_i
    H_ij = gamma^2 C(f_i, f_j) - gamma sum w r f_ij - a_i a_j / C(f, f)
    a_i = gamma C(f, f_i) - sum w r f_i

(r the residual, C the weighted covariance, f_i the derivative by theta_i): Golub and Pereyra,
https://doi.org/10.1137/0710036, with the full second derivative, so the Newton steps below converge
quadratically. B problems are solved at once, each at its own theta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probe.curves.families import MAX_SHIFT, Family
from probe.curves.kernels import reduced_objective
from probe.curves.points import Points

Floats = NDArray[np.float64]

LOWEST, HIGHEST = 1e-3, 300.0  # bounds of alpha * max|x|
GRID = 44  # starts along log alpha
SHIFTS = np.linspace(-MAX_SHIFT, MAX_SHIFT, 13)
_TINY = np.finfo(float).tiny


@dataclass(frozen=True)
class Solution:
    """theta (B, P), the loss sum w r^2 (B,), gamma and beta (B,)."""

    theta: Floats
    loss: Floats
    gamma: Floats
    beta: Floats


@dataclass(frozen=True)
class State:
    """The reduced objective at theta: loss (B,), half its gradient (B, P) and half its Hessian (B,
    P, P); gamma, beta (B,).
    """

    loss: Floats
    gradient: Floats
    hessian: Floats
    gamma: Floats
    beta: Floats

    @property
    def arrays(self) -> tuple[Floats, ...]:
        return self.loss, self.gradient, self.hessian, self.gamma, self.beta


def bounds(family: Family, max_abs: float) -> tuple[Floats, Floats]:
    """The box of theta."""
    lower, upper = np.log(np.array([LOWEST, HIGHEST]) / max_abs)
    if family.shifted:
        return np.array([lower, -MAX_SHIFT]), np.array([upper, MAX_SHIFT])
    return np.array([lower]), np.array([upper])


def evaluate(family: Family, theta: Floats, x: Floats, w: Floats, z: Floats) -> State:
    """The objective of B problems: theta (B, P); x (K,), w and z (B, K) or (1, K)."""
    ax = np.exp(theta[:, :1]) * x
    f, slope, bend = family.jet(ax + theta[:, 1:] if family.shifted else ax)
    along = slope * ax
    first = np.stack([along, slope]) if family.shifted else along[None]
    second = np.empty((len(first), *first.shape))
    second[0, 0] = bend * ax * ax + along
    if family.shifted:
        second[0, 1], second[1, 1] = bend * ax, bend
    problems, parameters = len(theta), len(first)
    state = State(
        np.empty(problems),
        np.empty((problems, parameters)),
        np.empty((problems, parameters, parameters)),
        np.empty(problems),
        np.empty(problems),
    )
    reduced_objective(f, first, second, w, z, *state.arrays)
    return state


def grid(family: Family, max_abs: float) -> Floats:
    """The starts: theta on a grid over the box, (GRID, S, P) with S shifts (1 for a family
    without).
    """
    lower, upper = np.log(np.array([LOWEST, HIGHEST]) / max_abs)
    t = np.linspace(lower, upper, GRID)
    if not family.shifted:
        return t[:, None, None]
    return np.stack(np.meshgrid(t, SHIFTS, indexing="ij"), axis=-1)


def grid_loss(family: Family, starts: Floats, points: Points) -> Floats:
    """The loss of every problem at every start, (B, GRID, S), by matrix products: the curves are
    shared by the B problems.

    One shift at a time: such products are too small for BLAS to share them out among threads, which
    costs more than they do.
    """
    mean, wz = np.vecdot(points.w, points.z), points.w * points.z
    loss = np.empty((len(points.w), *starts.shape[:2]))
    for s in range(starts.shape[1]):
        theta = starts[:, s]
        u = np.exp(theta[:, :1]) * points.x
        f = family.value(u + theta[:, 1:] if family.shifted else u)
        f = f - (f @ points.w[0])[:, None]
        first, square = f @ points.w.T, (f * f) @ points.w.T
        cross = f @ wz.T - first * mean
        variance = np.maximum(square - first * first, _TINY)
        loss[:, :, s] = (points.between - cross * cross / variance).T
    return loss


def lowest_cells(loss: Floats, most: int = 4) -> NDArray[np.intp]:
    """Flat indices of the deepest local minima of a loss on the grid (GRID, S), at most `most`,
    deepest first.
    """
    padded = np.pad(loss, 1, constant_values=np.inf)
    around = [
        padded[i : i + loss.shape[0], j : j + loss.shape[1]] for i in range(3) for j in range(3)
    ]
    minima = np.flatnonzero(np.all([loss <= each for each in around], axis=0))
    return minima[np.argsort(loss.flat[minima], kind="stable")[:most]]


def newton(
    objective: Callable[[Floats, NDArray[np.intp]], State],
    start: Floats,
    lower: Floats,
    upper: Floats,
    tolerance: float = 1e-9,
    most: int = 60,
) -> tuple[Floats, State]:
    """Minimize B objectives in a box from start (B, P): damped Newton steps on |H|, kept only where
    the loss does not grow.

    `objective(theta, which)` evaluates the problems `which` at theta (len(which), P). Stops where a
    step is under `tolerance`.
    """
    theta = np.clip(start, lower, upper)
    active = np.arange(len(theta))
    state = objective(theta, active)
    damping = np.zeros(len(theta))
    for _ in range(most):
        step = _step(
            theta[active],
            state.gradient[active],
            state.hessian[active],
            damping[active],
            lower,
            upper,
        )
        moving = np.abs(step).max(axis=1) > tolerance
        active, step = active[moving], step[moving]
        if not len(active):
            break
        trial = theta[active] + step
        new = objective(trial, active)
        better = new.loss <= state.loss[active] * (1 + 1e-14)
        eased = np.where(damping[active] > 1e-3, damping[active] / 8, 0)
        damping[active] = np.where(better, eased, np.maximum(8 * damping[active], 0.1))
        theta[active[better]] = trial[better]
        for kept, fresh in zip(state.arrays, new.arrays, strict=True):
            kept[active[better]] = fresh[better]
    return theta, state


def _step(
    theta: Floats, gradient: Floats, hessian: Floats, damping: Floats, lower: Floats, upper: Floats
) -> Floats:
    """The step inside the box: coordinates held at a bound rest, curvatures count by their size,
    none moves by more than 1.
    """
    held = ((theta <= lower) & (gradient > 0)) | ((theta >= upper) & (gradient < 0))
    gradient = np.where(held, 0, gradient)
    hessian = np.where(held[:, :, None] | held[:, None, :], 0, hessian)
    if hessian.shape[1] == 1:
        curvature = np.abs(hessian[:, :, 0])
        step = -gradient / np.maximum(curvature * (1 + damping[:, None]), np.abs(gradient) + _TINY)
    else:
        size, axes = np.linalg.eigh(hessian)
        size = np.abs(size)
        largest = size.max(axis=1, keepdims=True)
        size = np.maximum(size + damping[:, None] * largest, 1e-14 * largest + _TINY)
        step = -np.einsum("bij,bj->bi", axes, np.einsum("bij,bi->bj", axes, gradient) / size)
        step = step / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1)
    return np.clip(theta + step, lower, upper) - theta


def solve(
    family: Family,
    points: Points,
    starts: Floats,
    owner: NDArray[np.intp],
    max_abs: float,
    tolerance: float = 1e-9,
) -> Solution:
    """Refine starts (S, P) of the problems owner (S,) and keep the best of each problem: a Solution
    of B rows.
    """
    shared = len(points.w) == 1

    def objective(theta: Floats, which: NDArray[np.intp]) -> State:
        rows = slice(None) if shared else owner[which]
        return evaluate(family, theta, points.x, points.w[rows], points.z[rows])

    theta, state = newton(objective, starts, *bounds(family, max_abs), tolerance)
    order = np.lexsort((state.loss, owner))
    best = order[np.unique(owner[order], return_index=True)[1]]
    return Solution(theta[best], state.loss[best], state.gamma[best], state.beta[best])

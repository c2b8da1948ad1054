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
from probe.curves.kernels import accept, explained, propose, reduced_objective
from probe.curves.points import Points

Floats = NDArray[np.float64]

LOWEST, HIGHEST = 1e-3, 300.0  # bounds of alpha * max|x|
GRID = 44  # starts along log alpha
SHIFTS = np.linspace(-MAX_SHIFT, MAX_SHIFT, 13)


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


def evaluate(
    family: Family,
    theta: Floats,
    x: Floats,
    w: Floats,
    z: Floats,
    row: NDArray[np.intp] | None = None,
) -> State:
    """The objective of B problems: theta (B, P); x (K,); w and z (R, K), of which problem b takes
    row[b] (None: row b, or the only one).
    """
    problems, parameters = theta.shape
    alpha = np.exp(theta[:, 0])
    u = alpha[:, None] * x
    jet = family.jet(u + theta[:, 1:] if family.shifted else u)
    state = State(
        np.empty(problems),
        np.empty((problems, parameters)),
        np.empty((problems, parameters, parameters)),
        np.empty(problems),
        np.empty(problems),
    )
    if row is None:
        row = np.arange(problems) % len(w)
    reduced_objective(x, alpha, *jet, w, z, row, *state.arrays)
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
    """The loss of every problem at every start, (B, GRID, S): the B problems share the curves."""
    u = np.exp(starts[..., 0]).reshape(-1, 1) * points.x
    f = family.value(u + starts[..., 1].reshape(-1, 1) if family.shifted else u)
    mean, gain = np.vecdot(points.w, points.z), np.empty((len(u), len(points.w)))
    explained(f, points.w, points.w * (points.z - mean[:, None]), gain)
    return (points.between - gain).T.reshape(-1, *starts.shape[:2])


def lowest_cells(loss: Floats, most: int = 4) -> NDArray[np.intp]:
    """Flat indices of the deepest local minima of a loss on the grid (GRID, S), at most `most`,
    deepest first.
    """
    padded = np.full((loss.shape[0] + 2, loss.shape[1] + 2), np.inf)
    padded[1:-1, 1:-1] = loss
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
        step = np.empty((len(active), theta.shape[1]))
        propose(theta, state.gradient, state.hessian, damping, lower, upper, active, step)
        moving = np.abs(step).max(axis=1) > tolerance
        active, step = active[moving], step[moving]
        if not len(active):
            break
        trial = theta[active] + step
        fresh = objective(trial, active)
        accept(theta, state.arrays, damping, active, trial, fresh.arrays)
    return theta, state


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

    def objective(theta: Floats, which: NDArray[np.intp]) -> State:
        return evaluate(family, theta, points.x, points.w, points.z, owner[which])

    theta, state = newton(objective, starts, *bounds(family, max_abs), tolerance)
    order = np.lexsort((state.loss, owner))
    best = order[np.unique(owner[order], return_index=True)[1]]
    return Solution(theta[best], state.loss[best], state.gamma[best], state.beta[best])

"""The sums that scope `channel` needs, per image group and channel, and the closed form of gamma_c
and beta_c from them.

Curves are evaluated in float32 as differences d from the curve at the channel's mean input (so that
a channel far from zero keeps its digits), multiplied and summed per image group in float32 over a
few dozen rows, then in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from probe.curves.families import Family
from probe.curves.kernels import add_products, add_value_products

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

_FLAT = 1e-9  # a channel whose curve varies less than this share of its square is constant: gamma 0
_TINY = 1e-300
_SQUARED = 1e15  # sums of squares of larger values may be no float32


@dataclass(frozen=True)
class Rows:
    """x, z (N, C) float32 sorted by image group, z less its channel's mean; center (C,) the mean of
    x; blocks: rows by group. z is float64 where its squares are no float32.
    """

    x: Singles
    z: NDArray[np.floating]
    center: Singles
    mean_z: Floats  # (C,)
    blocks: tuple[slice, ...]

    @classmethod
    def of(cls, x: Singles, z: NDArray[np.floating], groups: NDArray[np.intp]) -> Rows:
        order = np.argsort(groups, kind="stable")
        ends = np.cumsum(np.bincount(groups)).tolist()
        mean_z = z.mean(axis=0, dtype=np.float64)
        center = x.mean(axis=0, dtype=np.float64).astype(np.float32)
        blocks = tuple(slice(begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True))
        held = np.float64 if np.abs(z).max(initial=0) > _SQUARED else np.float32
        z = z[order].astype(held) - mean_z.astype(held)
        return cls(x[order], z, center, mean_z, blocks)

    def thinned(self, rows: int) -> Rows:
        """About so many rows, evenly spaced, as one group."""
        every = max(1, len(self.x) // rows)
        x = self.x[::every].copy()
        return Rows(x, self.z[::every].copy(), self.center, self.mean_z, (slice(0, len(x)),))

    @cached_property
    def fixed(self) -> tuple[Floats, Floats]:
        """What no alpha changes: rows of each group (G, 1); sums of z and of z^2 (2, G, C)."""
        size = np.array([[float(block.stop - block.start)] for block in self.blocks])
        z = [self.z[block] for block in self.blocks]
        return size, np.array(
            [[each.sum(axis=0) for each in z], [_dot(each, each) for each in z]], dtype=np.float64
        )


def _dot(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Sums of products over rows (C,)."""
    return np.einsum("nc,nc->c", a, b)


@dataclass(frozen=True)
class Sums:
    """Rows n (R, 1) and sums (M, R, C) over them, R groups, totals or replicates: z zz d dd dz,
    then e ee de ez b db bz.

    e and b are the first and second derivative of d by log alpha.
    """

    n: Floats
    values: Floats

    def total(self) -> Sums:
        return Sums(self.n.sum(axis=0, keepdims=True), self.values.sum(axis=1, keepdims=True))

    def left_out(self) -> Sums:
        """The total less one group, a row per group."""
        return Sums(
            self.n.sum(axis=0) - self.n, self.values.sum(axis=1, keepdims=True) - self.values
        )


def gather(rows: Rows, family: Family, log_alpha: float, derivatives: bool = True) -> Sums:
    """The sums per group at one alpha; without `derivatives` only the first five. One group at a
    time stays in the cache.
    """
    alpha = np.float32(math.exp(log_alpha))
    origin = family.value(rows.center * alpha)
    size, fixed = rows.fixed
    sums = np.zeros((len(rows.blocks), 12 if derivatives else 5, len(origin)))
    sums[:, :2] = fixed.swapaxes(0, 1)
    for g, block in enumerate(rows.blocks):
        u, z = rows.x[block] * alpha, rows.z[block]
        if derivatives:
            add_products(u, *family.jet(u), origin, z, sums[g, 2:])
        else:
            add_value_products(family.value(u), origin, z, sums[g, 2:])
    return Sums(size, sums.swapaxes(0, 1))


def gather_totals(rows: Rows, family: Family, log_alphas: Floats) -> Sums:
    """The sums of values over all rows, a row per alpha."""
    each = [gather(rows, family, t, derivatives=False).total() for t in log_alphas.tolist()]
    return Sums(
        np.concatenate([sums.n for sums in each]),
        np.concatenate([sums.values for sums in each], axis=1),
    )


@dataclass(frozen=True)
class ClosedForm:
    """gamma_c, mean of d, sse, tss about the channel's mean: (R, C) each; tss (R,) about the pooled
    mean.
    """

    gamma: Floats
    mean_d: Floats
    sse: Floats
    tss: Floats
    pooled_tss: Floats

    @property
    def r2(self) -> Floats:
        """Pooled R2 (R,)."""
        return 1 - self.sse.sum(axis=1) / np.maximum(self.pooled_tss, _TINY)

    @property
    def channel_r2(self) -> Floats:
        """R2 of each channel about its mean (R, C); 0 for a constant one."""
        return np.where(self.tss > 0, 1 - self.sse / np.where(self.tss > 0, self.tss, 1), 0)


def closed_form(rows: Rows, sums: Sums) -> ClosedForm:
    """gamma_c = C(d, z) / C(d, d), and what the curve leaves."""
    n, (z, zz, d, dd, dz) = sums.n, sums.values[:5]
    variance = dd - d * d / n
    flat = variance <= _FLAT * dd
    shared = np.where(flat, 0, dz - d * z / n)
    gamma = shared / np.where(flat, 1, variance)
    tss = np.maximum(zz - z * z / n, 0)
    mean = rows.mean_z + z / n
    between = (n * (mean - mean.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return ClosedForm(
        gamma, d / n, np.maximum(tss - gamma * shared, 0), tss, tss.sum(axis=1) + between
    )


def descent(sums: Sums, gamma: Floats) -> tuple[Floats, Floats]:
    """Half the first and second derivative of the summed loss by log alpha (R,), as in `varpro`,
    summed over channels.
    """
    n, (z, _, d, dd, _, e, ee, de, ez, b, db, bz) = sums.n, sums.values
    variance = np.where(gamma == 0, 1, dd - d * d / n)
    shared = de - d * e / n
    along = ez - e * z / n - gamma * shared
    bend = bz - b * z / n - gamma * (db - d * b / n)
    a = gamma * shared - along
    curvature = (
        gamma * gamma * (ee - e * e / n) - gamma * bend - np.where(gamma == 0, 0, a * a / variance)
    )
    return -(gamma * along).sum(axis=1), curvature.sum(axis=1)

"""The sums that the fits are made of, each in one pass over the values of a curve (numba)."""

from __future__ import annotations

import numpy as np

from probe.compiling import compiled

_TINY = np.finfo(np.float64).tiny
_compile = compiled(
    nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy"
)


@_compile
def add_products(u, f, slope, bend, origin, z, sums):  # type: ignore[no-untyped-def]
    """Add to sums (10, C), float64: d dd dz e ee de ez b db bz of the rows, with d = f - origin,
    and e and b its first and second derivative by log alpha.

    u, f, slope, bend (N, C): alpha x, and the curve and its derivatives there; origin (C,); z (N,
    C). N is a few dozen: over that many the sums are in the precision of z.
    """
    rows, channels = u.shape
    parts = np.zeros((10, channels), z.dtype)
    d_sum, dd, dz, e_sum, ee = parts[0], parts[1], parts[2], parts[3], parts[4]
    de, ez, b_sum, db, bz = parts[5], parts[6], parts[7], parts[8], parts[9]
    for n in range(rows):
        un, fn, sn, bn, zn = u[n], f[n], slope[n], bend[n], z[n]
        for c in range(channels):
            d = fn[c] - origin[c]
            e = sn[c] * un[c]
            d_sum[c] += d
            dd[c] += d * d
            dz[c] += d * zn[c]
            e_sum[c] += e
            ee[c] += e * e
            de[c] += d * e
            ez[c] += e * zn[c]
        for c in range(channels):
            d = fn[c] - origin[c]
            b = bn[c] * un[c] * un[c] + sn[c] * un[c]
            b_sum[c] += b
            db[c] += d * b
            bz[c] += b * zn[c]
    for k in range(10):
        for c in range(channels):
            sums[k, c] += parts[k, c]


@_compile
def reduced_objective(f, first, second, w, z, loss, gradient, hessian, gamma, beta):  # type: ignore[no-untyped-def]
    """The objective of `varpro` for B problems, into loss (B,), gradient (B, P), hessian (B, P, P),
    gamma and beta (B,).

    f (B, K) the curve, first (P, B, K) its derivatives by theta_i, second (P, P, B, K) those by
    theta_i and theta_j (of which i <= j is read); w, z (B, K), or (1, K) where the problems share
    them.
    """
    size = first.shape[0]
    a, d, r = np.empty(size), np.empty(f.shape[1]), np.empty(f.shape[1])
    for b in range(f.shape[0]):
        weight = w[b % w.shape[0]]
        variance, gamma[b], beta[b] = _project(f[b], weight, z[b % z.shape[0]], d, r)
        loss[b] = _product(weight, r, r)
        for i in range(size):
            along = _product(weight, r, first[i, b])
            gradient[b, i] = -gamma[b] * along
            a[i] = gamma[b] * _product(weight, d, first[i, b]) - along
        for i in range(size):
            for j in range(i, size):
                shared = _covariance(weight, first[i, b], first[j, b])
                bend = _product(weight, r, second[i, j, b])
                entry = gamma[b] ** 2 * shared - gamma[b] * bend - a[i] * a[j] / variance
                hessian[b, i, j] = hessian[b, j, i] = entry


@_compile
def _project(f, w, z, d, r):  # type: ignore[no-untyped-def]
    """Variance of f, gamma and beta; f less its mean into d, the residual into r."""
    center, mean = 0.0, 0.0
    for k in range(f.shape[0]):
        center += w[k] * f[k]
        mean += w[k] * z[k]
    variance, shared = 0.0, 0.0
    for k in range(f.shape[0]):
        d[k] = f[k] - center
        variance += w[k] * d[k] * d[k]
        shared += w[k] * d[k] * z[k]
    variance = max(variance, _TINY)
    gamma = shared / variance
    for k in range(f.shape[0]):
        r[k] = z[k] - mean - gamma * d[k]
    return variance, gamma, mean - gamma * center


@_compile
def _product(w, a, b):  # type: ignore[no-untyped-def]
    total = 0.0
    for k in range(w.shape[0]):
        total += w[k] * a[k] * b[k]
    return total


@_compile
def _covariance(w, a, b):  # type: ignore[no-untyped-def]
    product, mean_a, mean_b = 0.0, 0.0, 0.0
    for k in range(w.shape[0]):
        product += w[k] * a[k] * b[k]
        mean_a += w[k] * a[k]
        mean_b += w[k] * b[k]
    return product - mean_a * mean_b

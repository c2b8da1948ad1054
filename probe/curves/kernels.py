"""The sums that the fits are made of, each in one pass over the values of a curve (numba)."""

from __future__ import annotations

import numpy as np

from probe.compiling import REORDERED, compiled

_TINY = np.finfo(np.float64).tiny
_compile, _part = compiled(REORDERED), compiled(REORDERED, part=True)


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
def add_value_products(f, origin, z, sums):  # type: ignore[no-untyped-def]
    """Add to sums (3, C), float64: d dd dz of the rows, with d = f - origin; f, z (N, C), origin
    (C,).
    """
    rows, channels = f.shape
    parts = np.zeros((3, channels), z.dtype)
    d_sum, dd, dz = parts[0], parts[1], parts[2]
    for n in range(rows):
        fn, zn = f[n], z[n]
        for c in range(channels):
            d = fn[c] - origin[c]
            d_sum[c] += d
            dd[c] += d * d
            dz[c] += d * zn[c]
    for k in range(3):
        for c in range(channels):
            sums[k, c] += parts[k, c]


@_compile
def reduced_objective(x, alpha, f, slope, bend, w, z, row, loss, gradient, hessian, gamma, beta):  # type: ignore[no-untyped-def]
    """The objective of `varpro` for B problems, into loss (B,), gradient (B, P), hessian (B, P, P),
    gamma and beta (B,).

    x (K,), alpha (B,); f, slope, bend (B, K): the curve and its derivatives at alpha x + shift; w,
    z (R, K), of which problem b takes the row (B,) of that index. P is 1, or 2 with a shift.
    """
    for b in range(f.shape[0]):
        weight, value = w[row[b]], z[row[b]]
        center, mean = _product(weight, f[b]), _product(weight, value)
        variance, shared = _spread(weight, f[b], center, value)
        gamma[b] = shared / variance
        beta[b] = mean - gamma[b] * center
        loss[b], r, d, m, square, bent = _moments(
            alpha[b], x, f[b], slope[b], bend[b], weight, value, center, gamma[b], beta[b]
        )
        for i in range(gradient.shape[1]):
            gradient[b, i] = -gamma[b] * r[i]
            for j in range(i + 1):
                left, right = gamma[b] * d[i] - r[i], gamma[b] * d[j] - r[j]
                entry = gamma[b] ** 2 * (square[i + j] - m[i] * m[j]) - gamma[b] * bent[i + j]
                hessian[b, i, j] = hessian[b, j, i] = entry - left * right / variance


@_part
def _product(w, a):  # type: ignore[no-untyped-def]
    total = 0.0
    for k in range(w.shape[0]):
        total += w[k] * a[k]
    return total


@_part
def _spread(w, f, center, z):  # type: ignore[no-untyped-def]
    """Variance of f, at least a tiny one, and its covariance with z."""
    variance, shared = 0.0, 0.0
    for k in range(w.shape[0]):
        d = f[k] - center
        variance += w[k] * d * d
        shared += w[k] * d * z[k]
    return max(variance, _TINY), shared


@_part
def _moments(alpha, x, f, slope, bend, w, z, center, gamma, beta):  # type: ignore[no-untyped-def]
    """Sums over the points, with r the residual, d = f - center, f_0 = f' alpha x and f_1 = f':

    w r^2; w r f_i, w d f_i and w f_i (2 each); w f_i f_j and w r f_ij (3 each, at i + j).
    """
    loss, r_0, r_1, d_0, d_1, m_0, m_1 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    s_00, s_01, s_11, b_00, b_01, b_11 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(w.shape[0]):
        ax, f_1 = alpha * x[k], slope[k]
        f_0, turn = f_1 * ax, bend[k] * ax
        r = z[k] - beta - gamma * f[k]
        wr, wd = w[k] * r, w[k] * (f[k] - center)
        w_0, w_1 = w[k] * f_0, w[k] * f_1
        loss += wr * r
        r_0 += wr * f_0
        r_1 += wr * f_1
        d_0 += wd * f_0
        d_1 += wd * f_1
        m_0 += w_0
        m_1 += w_1
        s_00 += w_0 * f_0
        s_01 += w_0 * f_1
        s_11 += w_1 * f_1
        b_00 += wr * (turn * ax + f_0)
        b_01 += wr * turn
        b_11 += wr * bend[k]
    return loss, (r_0, r_1), (d_0, d_1), (m_0, m_1), (s_00, s_01, s_11), (b_00, b_01, b_11)


@_compile
def propose(theta, gradient, hessian, damping, lower, upper, active, step):  # type: ignore[no-untyped-def]
    """The steps of Newton of the problems `active`, into step (len(active), P), inside the box.

    Coordinates held at a bound rest, curvatures count by their size, none moves by more than 1.
    """
    for n in range(active.shape[0]):
        b = active[n]
        g_0, h_00 = gradient[b, 0], hessian[b, 0, 0]
        if _is_held(theta[b, 0], g_0, lower[0], upper[0]):
            g_0, h_00 = 0.0, 0.0
        if theta.shape[1] == 1:
            step[n, 0] = -g_0 / max(abs(h_00) * (1 + damping[b]), abs(g_0) + _TINY)
        else:
            g_1, h_01, h_11 = gradient[b, 1], hessian[b, 0, 1], hessian[b, 1, 1]
            if _is_held(theta[b, 1], g_1, lower[1], upper[1]):
                g_1, h_01, h_11 = 0.0, 0.0, 0.0
            if h_00 == 0 and g_0 == 0:
                h_01 = 0.0
            step[n, 0], step[n, 1] = _step(g_0, g_1, h_00, h_01, h_11, damping[b])
        for i in range(theta.shape[1]):
            step[n, i] = min(max(theta[b, i] + step[n, i], lower[i]), upper[i]) - theta[b, i]


@_compile
def accept(theta, kept, damping, active, trial, fresh):  # type: ignore[no-untyped-def]
    """Take over the trials (len(active), P) whose loss does not grow, and their state; the others
    are damped more. kept, fresh: loss, gradient, hessian, gamma and beta of all and of the trials.
    """
    for n in range(active.shape[0]):
        b = active[n]
        if fresh[0][n] <= kept[0][b] * (1 + 1e-14):
            kept[0][b], kept[3][b], kept[4][b] = fresh[0][n], fresh[3][n], fresh[4][n]
            for i in range(theta.shape[1]):
                theta[b, i], kept[1][b, i] = trial[n, i], fresh[1][n, i]
                for j in range(theta.shape[1]):
                    kept[2][b, i, j] = fresh[2][n, i, j]
            damping[b] = damping[b] / 8 if damping[b] > 1e-3 else 0.0
        else:
            damping[b] = max(8 * damping[b], 0.1)


@_compile
def explained(f, w, wz, out):  # type: ignore[no-untyped-def]
    """C(f, z)^2 / C(f, f) of S curves and B maps into out (S, B): f (S, K); weights w of sum 1 and
    wz = w (z - mean z) (B, K).
    """
    d = np.empty(f.shape[1])
    for s in range(f.shape[0]):
        center = _product(w[0], f[s])  # near enough that of every map to keep the digits
        for k in range(d.shape[0]):
            d[k] = f[s, k] - center
        for b in range(w.shape[0]):
            first, square, cross = 0.0, 0.0, 0.0
            weight, product = w[b], wz[b]
            for k in range(d.shape[0]):
                wd = weight[k] * d[k]
                first += wd
                square += wd * d[k]
                cross += product[k] * d[k]
            out[s, b] = cross * cross / max(square - first * first, _TINY)


@_part
def _is_held(theta, gradient, lower, upper):  # type: ignore[no-untyped-def]
    return (theta <= lower and gradient > 0) or (theta >= upper and gradient < 0)


@_part
def _step(g_0, g_1, h_00, h_01, h_11, damping):  # type: ignore[no-untyped-def]
    """-|H|^-1 g along the axes of H, damped, no longer than 1 along theta_0 or theta_1."""
    middle, half = (h_00 + h_11) / 2, (h_00 - h_11) / 2
    radius, angle = np.hypot(half, h_01), np.arctan2(h_01, half) / 2
    c, s = np.cos(angle), np.sin(angle)
    first, second = abs(middle + radius), abs(middle - radius)
    largest = max(first, second)
    least = 1e-14 * largest + _TINY
    along = (c * g_0 + s * g_1) / max(first + damping * largest, least)
    across = (c * g_1 - s * g_0) / max(second + damping * largest, least)
    step_0, step_1 = s * across - c * along, -s * along - c * across
    size = max(abs(step_0), abs(step_1), 1.0)
    return step_0 / size, step_1 / size

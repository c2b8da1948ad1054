"""The products that scope `channel` sums over rows, in one pass (numba)."""

from __future__ import annotations

import numpy as np

from probe.compiling import compiled

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

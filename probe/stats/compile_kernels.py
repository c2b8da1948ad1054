"""How kernels are compiled (numba): without the GIL, so that several threads can run them, and kept
on disk (`probe.compiling`).
"""

from __future__ import annotations

from probe.compiling import compiled

# Reductions may be reordered (SIMD); NaN and inf keep their meaning, so that a sum tells whether a
# row or plane is finite.
_REORDERED = {"reassoc", "contract", "nsz", "arcp"}

kernel = compiled(nogil=True, fastmath=_REORDERED, error_model="numpy")
inlined = compiled(nogil=True, fastmath=_REORDERED, error_model="numpy", inline="always")
# Only where there is no NaN: the compiler vectorizes min and max just where it need not care for
# it. The smallest and largest of nothing are infinite.
finite_kernel = compiled(nogil=True, fastmath=_REORDERED | {"nnan"}, error_model="numpy")

"""How the kernels of the statistics are compiled (`probe.compiling`)."""

from __future__ import annotations

from probe.compiling import REORDERED, compiled

# Only where there is no NaN: the compiler vectorizes min and max just where it need not care for
# it. The smallest and largest of nothing are infinite.
_FINITE = REORDERED | {"nnan"}

kernel = compiled(REORDERED)
finite_kernel = compiled(_FINITE)
# What other kernels call; `inlined` where numba is to know the types of the caller.
part = compiled(REORDERED, part=True)
finite_part = compiled(_FINITE, part=True)
inlined = compiled(REORDERED, inline="always")

"""Counting elements in the bins of a profile, for the kernels.

A cell is one cache line of eight float64 (`sums.CELL_WIDTH`): an element adds
[x, z, x x, z z, x z, 1, 1, 1] to it by one vector multiply-add, where adding each sum by itself
takes six loads and six stores. numba does not vectorize across the sums of a cell, so the addition
is written in LLVM's own terms, which every processor has an instruction or a few for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from probe import bins
from probe.stats.compile_kernels import part
from probe.stats.sums import CELL_WIDTH, CellSum

SHIFT, FIRST, PER_SIGN = bins.SHIFT, bins.FIRST, bins.PER_SIGN
MAGNITUDE = 0x7FFFFFFF >> SHIFT  # of the shifted bits: all but the sign

_DOUBLE = ir.DoubleType()
_CELL, _PAIR = ir.VectorType(_DOUBLE, CELL_WIDTH), ir.VectorType(_DOUBLE, 2)
_LANES = ir.VectorType(ir.IntType(32), CELL_WIDTH)
_X, _Z, _ONE = 0, 1, 2  # lanes of (x, z, 1, 1)
# What is multiplied in each sum of a cell; from COUNT on, ones.
_FACTORS = {
    CellSum.X: (_X, _ONE),
    CellSum.Z: (_Z, _ONE),
    CellSum.XX: (_X, _X),
    CellSum.ZZ: (_Z, _Z),
    CellSum.XZ: (_X, _Z),
    CellSum.COUNT: (_ONE, _ONE),
}


@part
def find_cells(bits, indices):  # type: ignore[no-untyped-def]
    """The cells (`bins.CELLS`) of finite values, given as their bits (n,) int32, into indices (n,)
    int32. Without branches, so that it is vectorized."""
    for c in range(bits.shape[0]):
        k = ((bits[c] >> np.int32(SHIFT)) & np.int32(MAGNITUDE)) - np.int32(FIRST)
        sign = bits[c] >> np.int32(31)  # 0 or -1
        inside = k + (sign & np.int32(PER_SIGN))
        beyond = np.int32(2 * PER_SIGN + 1) - sign
        outside = np.int32(2 * PER_SIGN) if k < 0 else beyond
        indices[c] = inside if 0 <= k < np.int32(PER_SIGN) else outside


@part
def count_elements(cells, indices, pairs):  # type: ignore[no-untyped-def]
    """Add elements (x, z), two after the other in pairs (2 n,) float64, to their cells (CELLS,
    CELL_WIDTH) of rows without gaps."""
    for c in range(indices.shape[0]):
        _add_pair(cells, np.int64(indices[c]), pairs, c)  # type: ignore[call-arg]


@intrinsic
def _add_pair(typing_context: Any, cells: Any, cell: Any, pairs: Any, element: Any) -> Any:
    """cells[cell] += the products of element number `element` of `pairs`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _item(context, builder, signature, arguments, 0, _CELL)
        pair = builder.load(_item(context, builder, signature, arguments, 2, _PAIR))
        pair.align = 8
        ones = ir.Constant(_PAIR, [1.0, 1.0])
        lanes = zip(*map(_factors, range(CELL_WIDTH)), strict=True)
        left, right = (
            builder.shuffle_vector(pair, ones, ir.Constant(_LANES, chosen)) for chosen in lanes
        )
        before = builder.load(place)
        product = builder.fmul(left, right, flags=("contract",))
        store = builder.store(builder.fadd(before, product, flags=("contract",)), place)
        # arrays are allocated at cache lines, but a copy that travelled may lie anywhere
        before.align = store.align = 8
        return context.get_dummy_value()

    return types.void(cells, cell, pairs, element), generate


def _item(context: Any, builder: Any, signature: Any, arguments: Any, array: int, item: Any) -> Any:
    """The address of item number arguments[array + 1] of an array without gaps."""
    data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
    return builder.gep(builder.bitcast(data, item.as_pointer()), [arguments[array + 1]])


def _factors(lane: int) -> tuple[int, int]:
    return _FACTORS[CellSum(min(lane, CellSum.COUNT))]

"""Attention statistics of rows of scores in one pass, on the CPU (numba): what `attention_rows`
does by torch, which reads and writes the scores seven times.

Of the scores s of some keys, h the largest, a kernel sums e = exp(s - h), e (s - h) and e d. With Z
the first and W the second of these sums, over all keys, the entropy of the softmax is log Z - W /
Z: neither part is negative, nothing cancels.

exp is written out, as a power of two times a polynomial over +-log(2) / 2 (that of expf in Cephes,
https://www.netlib.org/cephes/), 8e-8 off at most: a call of the C library would keep the loop over
the keys from being vectorized. Kernels release the GIL and start no threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from probe.compiling import compiled
from probe.stats.attention_rows import MASKED
from probe.stats.compile_kernels import inlined, kernel, part

# Not reordered: adding and subtracting _ROUND is what rounds.
_part_as_written = compiled({"contract"}, part=True)

_LOG2_E = np.float32(1.44269504)
_LN2, _LN2_REST = np.float32(0.693359375), np.float32(-2.12194440e-4)
_ROUND = np.float32(1.5 * 2**23 + 127)  # float32 near it are whole; 127: the exponent of 1
_P0, _P1, _P2, _P3, _P4, _P5 = (
    np.float32(factor)
    for factor in (
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    )
)
_ZERO, _ONE = np.float32(0), np.float32(1)
_LOWEST = np.float32(-87)  # exp of it is the smallest that is a power of two times the polynomial
_MANTISSA = np.int32(23)  # bits
_SIGN, _MAGNITUDE = np.int32(31), np.int32(0x7FFFFFFF)


@kernel
def add_rows(scores: Any, distances: Any, prefix: Any, sums: Any) -> None:
    """Add to sums (G, 5) those over the queries of scores (G, L, S), float32 without gaps: number
    of queries, distance, raw distance, prefix mass, entropy (`attention_rows`).

    distances (L, P), float32: of the keys from `prefix` on that are patches. Queries whose patch
    keys are all masked are left out.
    """
    bits = scores.view(np.int32)
    last = prefix + distances.shape[1]
    others = np.concatenate((np.arange(prefix), np.arange(last, scores.shape[2])))
    for g in range(scores.shape[0]):
        for q in range(scores.shape[1]):
            patch = _patch_sums(scores[g, q, prefix:last], bits[g, q, prefix:last], distances[q])
            if patch[1] != 0.0:
                _add_query(sums[g], patch, _other_sums(scores[g, q], others))


@inlined
def _patch_sums(row: Any, bits: Any, distances: Any) -> Any:
    """Of the scores of some keys, as float64: the largest h, sum exp(s - h), the same times (s -
    h), the same times the distance. All keys masked: the second is 0."""
    high = _largest(bits)
    if high <= MASKED and not _any_nan(row):
        return 0.0, 0.0, 0.0, 0.0
    total, weighted, distance = _ZERO, _ZERO, _ZERO
    for k in range(row.shape[0]):
        less = max(row[k] - high, _LOWEST)
        share = _exp(less)
        total += share
        weighted += share * less
        distance += share * distances[k]
    return np.float64(high), np.float64(total), np.float64(weighted), np.float64(distance)


@inlined
def _other_sums(row: Any, keys: Any) -> Any:
    """The same of a few keys, but for the distance."""
    high, unknown = np.float32(MASKED), False
    for k in keys:
        high = max(high, row[k])
        unknown |= math.isnan(row[k])
    if high == np.float32(MASKED) and not unknown:
        return MASKED, 0.0, 0.0
    total, weighted = 0.0, 0.0
    for k in keys:
        less = max(row[k] - high, _LOWEST)
        share = np.float64(_exp(less))
        total += share
        weighted += share * less
    return np.float64(high), total, weighted


@part
def _add_query(sums: Any, patch: Any, other: Any) -> None:
    """Add one query: `patch` and `other` are the sums over the one and the other keys."""
    highest = max(patch[0], other[0])
    fall = math.exp(-abs(patch[0] - other[0]))  # 1 where the largest score is, the other's share
    patch_fall, other_fall = (fall, 1.0) if patch[0] < other[0] else (1.0, fall)
    patch_mass, other_mass = patch_fall * patch[1], other_fall * other[1]
    total = patch_mass + other_mass
    weighted = patch_fall * patch[2] + other_fall * other[2]
    weighted -= patch_mass * (highest - patch[0]) + other_mass * (highest - other[0])
    distance = patch[3] / patch[1]
    sums[0] += 1.0
    sums[1] += distance
    sums[2] += distance * (patch_mass / total)
    sums[3] += other_mass / total
    sums[4] += math.log(total) - weighted / total


@part
def _largest(bits: Any) -> Any:
    """Of float32 given as their bits; -inf of none. Ordered as integers (the magnitude bits of
    negative numbers flipped), because the compiler vectorizes a maximum of integers and not one of
    floats."""
    largest = np.int32(-0x7F800001)  # -inf, flipped
    for k in range(bits.shape[0]):
        largest = max(largest, bits[k] ^ ((bits[k] >> _SIGN) & _MAGNITUDE))
    return _float_of(np.int32(largest ^ ((largest >> _SIGN) & _MAGNITUDE)))  # type: ignore[call-arg]


@part
def _any_nan(row: Any) -> Any:
    for value in row:  # noqa: SIM110 (numba)
        if math.isnan(value):
            return True
    return False


@_part_as_written
def _exp(x: Any) -> Any:
    """exp of a float32 from _LOWEST to 0."""
    rounded = x * _LOG2_E + _ROUND
    whole = rounded - _ROUND
    r = (x - whole * _LN2) - whole * _LN2_REST
    p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
    exponent = np.int32(_bits_of(rounded) << _MANTISSA)  # type: ignore[call-arg]
    return (p * (r * r) + r + _ONE) * _float_of(exponent)  # type: ignore[call-arg]


@intrinsic
def _bits_of(typing_context: Any, x: Any) -> Any:
    """The bits of a float32 as int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def _float_of(typing_context: Any, bits: Any) -> Any:
    """The float32 of the bits int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate

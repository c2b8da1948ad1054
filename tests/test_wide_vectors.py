"""Kernels use the widest vectors of the processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from llvmlite import binding

from probe.compiling import REORDERED, compiled
from probe.wide_vectors import WIDEST


@compiled(REORDERED, part=True)
def _sum(row: Any) -> Any:
    total = 0.0
    for value in row:
        total += value
    return total


@compiled(REORDERED)
def _sums(rows: Any) -> Any:
    total = 0.0
    for r in range(rows.shape[0]):
        total += _sum(rows[r])
    return total


@pytest.fixture(scope="module")
def kernel() -> Any:
    _sums.recompile()  # a kernel that was loaded does not say how it was compiled
    assert _sums(np.ones((3, 1000))) == 3000.0
    return _sums


def test_a_kernel_asks_for_them(kernel: Any) -> None:
    (code,) = kernel.inspect_llvm().values()
    assert WIDEST in code


def test_what_is_written_into_a_kernel_uses_them(kernel: Any) -> None:
    if not binding.get_host_cpu_features().get("avx512f"):
        pytest.skip("this processor has no vectors of 512 bits")
    (code,) = kernel.inspect_asm().values()
    assert "%zmm" in code

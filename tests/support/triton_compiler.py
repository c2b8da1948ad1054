"""Compile the Triton kernels as they are launched, for a processor that need not be there."""

from __future__ import annotations

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from probe.stats.triton_farthest import farthest
from probe.stats.triton_kernels import reduce

_POINTERS = {
    "*bf16": ["x", "z"],
    "*fp32": ["plane_mean", "plane_scale", "low", "high", "values"],
    "*u8": ["kinds", "valid"],
    "*i32": ["copy_of", "bad", "taken"],
    "*fp64": ["eps", "sums", "means", "sigmas"],
    "*i64": ["cells", "places"],
    "fp32": ["z_unit", "quantum"],
}
_TYPES = {name: kind for kind, names in _POINTERS.items() for name in names}
_TOKEN = {"NORM": 0, "CENTERED": True, "MASKED": True, "x_channel": 1, "z_channel": 1}
_CELLS = {"BINNED": True, "COLLECT": True, "KINDS": 2}
_CASES: dict[str, tuple[Any, dict[str, Any], int]] = {
    "token": (reduce, _TOKEN | _CELLS | {"WHOLE": True, "ROWS": 1, "WIDTH": 1024}, 8),
    "planes": (
        reduce,
        {"NORM": 1, "CENTERED": False, "MASKED": False, "x_row": 1, "z_row": 1, "WHOLE": False}
        | _CELLS
        | {"ROWS": 128, "WIDTH": 8},
        8,
    ),
    "given": (
        reduce,
        _TOKEN | {"NORM": 2} | _CELLS | {"WHOLE": False, "ROWS": 8, "WIDTH": 128},
        8,
    ),
    "farthest": (farthest, _TOKEN | {"ROWS": 64, "WIDTH": 16}, 4),
}


def compiled(case: str, capability: int) -> Any:
    """The compiled kernel; raises what the compiler raises."""
    kernel, constants, warps = _CASES[case]
    types = _TYPES | ({} if constants.get("WHOLE", True) else {"cells": "*fp64"})
    signature = {
        name: "constexpr" if name in constants else types.get(name, "i32")
        for name in kernel.arg_names
    }
    source = ASTSource(kernel, signature, constexprs=constants)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_warps": warps})

"""What kernels compute does not depend on whether they were compiled just now or long ago."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numba.extending import is_jitted

import probe
import probe.curves
import probe.stats
import probe.store
from support.kernel_numbers import PARTS

TESTS = Path(__file__).parent


def kernels() -> Iterator[Any]:
    """The kernels of the package for the CPU."""
    for room in (probe.curves, probe.stats, probe.store):
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            if "triton" not in module.name:
                values = vars(importlib.import_module(module.name)).values()
                yield from (value for value in values if is_jitted(value))


def called_by(kernel: Any) -> Iterator[Any]:
    """The kernels that a kernel calls."""
    names = inspect.getclosurevars(kernel.py_func)
    return filter(is_jitted, (names.globals | names.nonlocals).values())


def test_a_kernel_that_others_call_is_always_written_into_them() -> None:
    called = {other for kernel in kernels() for other in called_by(kernel)}
    assert called
    for kernel in called:
        options = kernel.targetoptions
        assert options["forceinline"] or options["inline"] == "always", kernel


def numbers(part: str, kept: Path) -> str:
    """The digest of a process of its own, which keeps its kernels in the folder `kept`."""
    paths = os.pathsep.join([str(Path(probe.__file__).parents[1]), str(TESTS)])
    result = subprocess.run(
        [sys.executable, "-m", "support.kernel_numbers", part],
        env={**os.environ, "PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(kept)},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


@pytest.mark.parametrize(
    "part",
    [pytest.param(part, marks=() if part == "objective" else pytest.mark.slow) for part in PARTS],
)
def test_a_process_that_compiles_and_one_that_loads_compute_the_same(
    part: str, tmp_path: Path
) -> None:
    first = numbers(part, tmp_path)
    assert list(tmp_path.rglob("*.nbc"))
    assert numbers(part, tmp_path) == first

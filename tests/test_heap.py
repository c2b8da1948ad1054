"""Freed memory stays with the process inside of `heap.kept`, and only there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from probe import heap

FAULTS = """
import resource
import numpy as np
from probe import heap

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        np.ones(4 << 20)  # 32 MiB: 8,192 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

np.ones(1)
outside = faults()
with heap.kept():
    np.ones(4 << 20)
    inside = faults()
print(outside, inside)
"""

glibc = pytest.mark.skipif(heap._glibc() is None, reason="another C library")


@glibc
def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    command = [sys.executable, "-c", FAULTS]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    outside, inside = map(int, out.split())
    assert inside < outside / 20


@glibc
def test_memory_goes_back_at_the_end_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Recorder:
        def mallopt(self, parameter: int, value: int) -> None:
            calls.append((parameter, value))

        def malloc_trim(self, pad: int) -> None:
            calls.append(("trim", pad))

    monkeypatch.setattr(heap, "_glibc", Recorder)
    with pytest.raises(ZeroDivisionError), heap.kept():
        1 / 0  # noqa: B018
    assert calls[-1] == ("trim", 0)
    assert dict(calls[-4:-1]) == heap._GROWN


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_glibc", lambda: None)
    with heap.kept():
        pass

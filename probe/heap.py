"""The heap of this process while a model runs.

The C library gives memory that a model frees back to the system and asks for it anew at the next
layer. Each page of it then costs a fault, and the forward pass of a ViT-B/16 up to a tenth of its
time. Under `kept` freed memory stays with the process, as it does with the caching allocator of a
GPU. glibc alone has such a setting; elsewhere nothing changes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

# parameters of mallopt(3)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3

_KEPT = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 64 << 20}
# what glibc itself ends with, in a process that has freed blocks of up to 32 MiB
_GROWN = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 128 << 10}


@contextmanager
def kept() -> Iterator[None]:
    """Memory that is freed inside of the block stays with the process until its end."""
    libc = _glibc()
    if libc is None:
        yield
        return
    _set(libc, _KEPT)
    try:
        yield
    finally:
        _set(libc, _GROWN)
        libc.malloc_trim(0)


def _set(libc: Any, values: dict[int, int]) -> None:
    for parameter, value in values.items():
        libc.mallopt(parameter, value)


@cache
def _glibc() -> Any:
    """None where the C library is another one."""
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None

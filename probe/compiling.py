"""How kernels are compiled (numba), and where they are kept.

What numba keeps of a kernel holds a copy of each kernel that it calls, optimized once more in
there, unless the compiler wrote that one into it. The process that compiles both calls the kernel
itself, one that loads them calls the copy, and where sums may be reordered the two differ in the
last digits. So a kernel that others call is compiled as their `part`: always written into them.

numba looks for a folder that it can write to: `NUMBA_CACHE_DIR`, then `__pycache__` beside the
file, then the cache of the user. Where it has none, as for a user without a home who runs an
installation that belongs to another, it refuses to compile at all. Here a folder of the user in the
system's place for temporary files follows, and where that fails too each process compiles them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numba
from numba import njit
from numba.core import event

from probe import private
from probe.kernel_files import without_list
from probe.wide_vectors import WideCompiler

_log = logging.getLogger(__name__)

NUMBA = Path()  # wherever numba keeps what it compiles
SETTINGS: Any = numba.config  # its names come from the environment
ONCE = "kernels, at first use only"  # what a bar says meanwhile
CHOOSE = "set NUMBA_CACHE_DIR to a folder that can be written to"
# Sums may be reordered (SIMD); NaN and inf keep their meaning.
REORDERED = frozenset({"reassoc", "contract", "nsz", "arcp"})


def compiled(
    fastmath: Set[str] = frozenset(),
    *,
    part: bool = False,
    inline: Literal["never", "always"] = "never",
) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` for functions of this package: cached where that is possible, without the GIL,
    so that several threads can run them, and 1 / 0 is infinite.

    fastmath: what the compiler may do to floating-point numbers, in the words of LLVM.
    part: other kernels call it, and the compiler writes it into these, with its own `fastmath`.
    inline: "always": numba itself does so before it finds the types, with that of the caller.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        folder = cache_folder()
        compiler = njit(
            cache=folder is not None,
            nogil=True,
            error_model="numpy",
            fastmath=set(fastmath),
            forceinline=part,
            inline=inline,
            pipeline_class=WideCompiler,
        )
        with _cache_at(folder):  # numba chooses the folder when it decorates
            return without_list(compiler(function))

    return decorate


@cache
def cache_folder() -> Path | None:
    """The folder for compiled kernels; NUMBA: one that numba finds by itself; None: there is none.

    What is other than usual is logged, once.
    """
    if _numba_caches():
        return NUMBA
    folder = private_folder()
    if folder is not None:
        with _cache_at(folder):
            if _numba_caches():
                return folder
    _log.warning("compiled kernels are not kept, each start compiles them anew: %s", CHOOSE)
    return None


@contextmanager
def announced(say: Callable[[], None]) -> Iterator[None]:
    """Calls `say` before the first kernel that is compiled in this block, which takes seconds; one
    that is kept is loaded without a word.
    """
    with event.install_listener("numba:compile", _First(say)):
        yield


class _First(event.Listener):
    """Tells the first start of an event."""

    def __init__(self, say: Callable[[], None]) -> None:
        self._say: Callable[[], None] | None = say

    def on_start(self, event: event.Event) -> None:
        say, self._say = self._say, None
        if say is not None:
            say()

    def on_end(self, event: event.Event) -> None:
        """Nothing to tell."""


def private_folder() -> Path | None:
    """A folder for temporary files that is this user's alone, as what lies in it is run; None where
    it cannot be made, or is not that.
    """
    made = private.private_folder("kernels")
    if made is None:
        return None
    folder, new = made
    if new:
        _log.warning("compiled kernels are kept in %s; for another place %s", folder, CHOOSE)
    return folder


def _numba_caches() -> bool:
    """Does numba find a folder that it can write to? It says so by its refusal alone."""
    try:
        njit(cache=True)(_nothing)
    except RuntimeError:
        return False
    return True


def _nothing() -> None:
    """What is decorated to see whether that can be cached; it is never compiled."""


@contextmanager
def _cache_at(folder: Path | None) -> Iterator[None]:
    """numba's folder for kernels that are decorated in this block; NUMBA and None: no other."""
    before = SETTINGS.CACHE_DIR
    if folder not in (None, NUMBA):
        SETTINGS.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        SETTINGS.CACHE_DIR = before

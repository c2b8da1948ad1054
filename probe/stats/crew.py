"""Threads that work on one thing together with the thread that asks, for kernels that release the
GIL. Waking one takes as long as a kernel for a small layer, so there is nothing between: no
futures, no locks.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any

import torch


@contextmanager
def one_core_each() -> Iterator[int]:
    """Operations of torch in this thread stay on its core inside of the block, as they always do in
    the helpers of a crew. Gives how many threads there may be for that.

    How many threads an operation takes is a matter of the thread that asks for it (`nthreads-var`
    of OpenMP).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


class Crew:
    """`helpers` threads that wait for the life of the process.

    Crew(1).together(work)  # work() here and work() in the helper
    """

    def __init__(self, helpers: int) -> None:
        self._helpers = helpers
        self._calls: SimpleQueue = SimpleQueue()
        self._avoided: int | None = None  # the core that the helpers keep off
        all_begun = threading.Barrier(helpers + 1)
        self._threads = [
            threading.Thread(
                target=self._serve, args=(all_begun,), name=f"probe-stats-{number}", daemon=True
            )
            for number in range(helpers)
        ]
        with one_core_each():  # so many cores has a thread that asks torch for the first time
            for thread in self._threads:
                thread.start()
            all_begun.wait()

    def together(
        self,
        work: Callable[[], Any],
        first: Callable[[], Any] = lambda: None,
        is_finished: Callable[[], bool] = lambda: False,
    ) -> None:
        """work() in this thread and in every helper, at the same time. Raises what one of them
        raises, once all are through.

        first: what this thread does before, while the helpers begin.
        is_finished: is nothing left for the helpers, once this thread is through? Then they find
        that out by themselves.
        """
        answers: SimpleQueue = SimpleQueue()
        self._avoid(current_core())
        for _ in range(self._helpers):
            self._calls.put((work, answers))
        errors = [_error_of(first) or _error_of(work)]
        if errors[0] is None and is_finished():
            return
        errors += [answers.get() for _ in range(self._helpers)]
        for error in errors:
            if error is not None:
                raise error

    def _avoid(self, core: int | None) -> None:
        """Keep the helpers off the core of the thread that asks. Linux likes to wake a thread where
        it was asked for, as long as a thread of torch still spins elsewhere, and there it waits for
        a millisecond or more.
        """
        if core is None or core == self._avoided:
            return
        self._avoided = core
        others = os.sched_getaffinity(0) - {core}
        for thread in self._threads if others else ():
            assert thread.native_id is not None
            with suppress(OSError):  # a matter of speed alone
                os.sched_setaffinity(thread.native_id, others)

    def _serve(self, all_begun: threading.Barrier) -> None:
        torch.get_num_threads()  # which settles on how many cores its operations run
        all_begun.wait()
        while True:
            work, answers = self._calls.get()
            answers.put(_error_of(work))
            del work, answers  # what they hold is not kept until the next call


def current_core() -> int | None:
    """Of this thread; None where the system does not say, or lets nobody choose."""
    ask = _core_of_this_thread()
    core = ask() if ask is not None else -1
    return core if core >= 0 else None


@functools.cache
def _core_of_this_thread() -> Callable[[], int] | None:
    if not hasattr(os, "sched_setaffinity"):
        return None
    return getattr(ctypes.CDLL(None), "sched_getcpu", None)


def crew(helpers: int) -> Crew:
    """The one of this process."""
    return _crew(helpers, os.getpid())  # threads stay behind when a process forks


@functools.cache
def _crew(helpers: int, process: int) -> Crew:
    return Crew(helpers)


def _error_of(work: Callable[[], Any]) -> BaseException | None:
    try:
        work()
    except BaseException as error:  # told to whoever waits
        return error
    return None

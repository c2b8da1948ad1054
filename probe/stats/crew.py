"""Threads that work on one thing together with the thread that asks, for kernels that release the
GIL. Waking one takes as long as a kernel for a small layer, so there is nothing between: no
futures, no locks.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any


class Crew:
    """`helpers` threads that wait for the life of the process.

    Crew(1).together(work)  # [work() here, work() in the helper]
    """

    def __init__(self, helpers: int) -> None:
        self._helpers = helpers
        self._calls: SimpleQueue = SimpleQueue()
        for number in range(helpers):
            name = f"probe-stats-{number}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()

    def together(self, work: Callable[[], Any]) -> list[Any]:
        """work() of this thread and of every helper, at the same time. Raises what one of them
        raises, once all are through.
        """
        answers: SimpleQueue = SimpleQueue()
        for _ in range(self._helpers):
            self._calls.put((work, answers))
        outcomes = [_outcome(work)]
        outcomes += [answers.get() for _ in range(self._helpers)]
        for _, error in outcomes:
            if error is not None:
                raise error
        return [result for result, _ in outcomes]

    def _serve(self) -> None:
        while True:
            work, answers = self._calls.get()
            answers.put(_outcome(work))
            del work, answers  # what they hold is not kept until the next call


def crew(helpers: int) -> Crew:
    """The one of this process."""
    return _crew(helpers, os.getpid())  # threads stay behind when a process forks


@functools.cache
def _crew(helpers: int, process: int) -> Crew:
    return Crew(helpers)


def _outcome(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return work(), None
    except BaseException as error:  # told to whoever waits
        return None, error

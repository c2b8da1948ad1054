"""Share the work on a run with a second process: fits and pictures are Python and numpy for the
most part, which one process does on one core only.

    with second_process("probe.jobs.fitting.fit"):
        results = shared(job, items)  # [job(item) for item in items], in whichever process is free

The second process is a fresh interpreter that imports the modules it is told to (none needs
torch), and while it starts the first one works on. A second process that cannot start, or is lost,
costs time and nothing else: what it has not answered is computed here. `PROBE_PROCESSES=1` does
without it.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, BinaryIO, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)
_SERVE = (
    "import json, sys; sys.path[:], modules = json.loads(sys.argv[1]); "
    "from probe.jobs.sharing import serve; serve(modules)"
)
_PAUSE = 0.05  # seconds between two looks at whether the second process has started


@contextmanager
def second_process(*modules: str) -> Iterator[None]:
    """Inside of the block `shared` works in two processes, where there are two cores. Blocks inside
    of each other share one process.

    modules: what the second process imports before it takes work.
    """
    if _running.get() is not None or processes() < 2:
        yield
        return
    second = _Second(modules)
    token = _running.set(second)
    try:
        yield
    finally:
        _running.reset(token)
        second.stop()


def processes() -> int:
    """How many work on a run: 2, or 1 on one core or where the user says so."""
    if os.environ.get("PROBE_PROCESSES") == "1":
        return 1
    return min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)


def shared(
    job: Callable[[Item], Result],
    items: Sequence[Item],
    progress: Callable[[int], None] = lambda done: None,
) -> list[Result]:
    """job(item) of every item, in their order.

    job, items and results are picklable; a job that travels leaves behind what it can read again.
    progress: called here with the number of finished items, before each item and at the end.
    What a job raises is raised here, though items after that one may have been worked on.
    """
    second = _running.get()
    work = _Work(items)
    thread = threading.Thread(target=second.help, args=(job, work)) if second is not None else None
    if thread is not None:
        thread.start()
    try:
        while (number := work.take()) is not None:
            progress(work.finished)
            work.results[number] = job(items[number])
    finally:
        work.stop()  # the second process takes no other item
        if thread is not None:
            thread.join()
    results = [
        work.results[number] if number in work.results else job(item)
        for number, item in enumerate(items)
    ]
    progress(len(items))
    return results


class _Work:
    """Items that two threads take one by one, and the results."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items
        self.results: dict[int, Any] = {}
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def finished(self) -> int:
        return len(self.results)

    @property
    def none_left(self) -> bool:
        return self._taken == len(self.items)

    def take(self) -> int | None:
        """The number of the next item; None: there is none."""
        with self._lock:
            if self.none_left:
                return None
            self._taken += 1
            return self._taken - 1

    def stop(self) -> None:
        with self._lock:
            self._taken = len(self.items)


class _Second:
    """The other process, seen from this one."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()
        self._lost = False
        start = [sys.path, modules]
        try:
            self._process = subprocess.Popen(
                [sys.executable, *_interpreter_flags(), "-c", _SERVE, json.dumps(start)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        except OSError as error:
            self._lose(error)
            return
        threading.Thread(target=self._greet, daemon=True).start()

    def help(self, job: Callable[[Any], Any], work: _Work) -> None:
        """Takes items until none is left. One that fails there is left to this process, which meets
        the same error.
        """
        while not self._ready.wait(_PAUSE):
            if work.none_left:
                return
        if self._lost:
            return
        try:
            self._ask(job)
            while (number := work.take()) is not None:
                worked, result = self._ask(work.items[number])
                if worked:
                    work.results[number] = result
        except (OSError, EOFError, pickle.PickleError) as error:
            self._lose(error)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was not sent
                pipe.close()  # type: ignore[union-attr]

    def _greet(self) -> None:
        try:
            self._answer()
        except (OSError, EOFError, ValueError, pickle.PickleError) as error:
            self._lose(error)
        self._ready.set()

    def _ask(self, message: Any) -> Any:
        assert self._process is not None
        _send(self._process.stdin, message)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process is not None
        return pickle.load(self._process.stdout)  # type: ignore[arg-type]

    def _lose(self, error: Exception) -> None:
        self._lost = True
        self._ready.set()
        _log.info("the second process is lost (%s); this one goes on alone", error)


_running: ContextVar[_Second | None] = ContextVar("second process", default=None)


def serve(modules: Sequence[str]) -> None:
    """The second process: a job, then its items, each answered by (worked, result); until the first
    process closes the pipe, which its end does too.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    for module in modules:
        importlib.import_module(module)
    with suppress(EOFError, BrokenPipeError):
        _send(answers, (True, None))
        job: Callable[[Any], Any] | None = None
        while True:
            message = pickle.load(requests)
            if callable(message):
                job = message
                _send(answers, (True, None))
                continue
            assert job is not None
            try:
                answer = (True, job(message))
            except Exception:  # the first process computes it again, and meets the same
                answer = (False, None)
            _send(answers, answer)


def _send(pipe: BinaryIO | Any, message: Any) -> None:
    pipe.write(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))
    pipe.flush()


def _interpreter_flags() -> list[str]:
    """-O, -W and the like of this process."""
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined, no-any-return]

"""A process that is killed at its k-th operation on files, or at a random time, and what it leaves.

The process is forked off from the one that runs the tests: what it needs is imported already.
Counted are the operations that change files below one folder: opening to write, fsync, rename,
replace, mkdir, rmdir, unlink.
"""

from __future__ import annotations

import builtins
import hashlib
import io
import itertools
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Job = Callable[[], Any]
NAMES = ("open", "fsync", "mkdir", "rename", "replace", "rmdir", "unlink", "remove")
RENAMES = ("mkdir", "rename", "replace")  # where files get their names


def run_forked(job: Job, prepare: Callable[[], None] = lambda: None, seconds: float = 0.0) -> int:
    """Runs a job in a forked process, kills that after so many seconds (0: never). Returns its exit
    code as `subprocess` does: negative for a signal.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that wait for work
        process = os.fork()
    if process == 0:
        _child(job, prepare)
    if seconds:
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _child(job: Job, prepare: Callable[[], None]) -> None:
    try:
        sys.stdout = sys.stderr = io.StringIO()
        prepare()
        code = job()
        said = sys.stderr.getvalue().encode()
        os.write(2, said if code else b"")
        os._exit(code if isinstance(code, int) else 0)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(70)


def killed_at(folder: Path, number: int, names: Sequence[str] = NAMES) -> Callable[[], None]:
    """Prepares a process to kill itself just before its operation of that number (from 1 on)."""

    def kill(count: int) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: _count(folder, kill, names)


def operations(job: Job, folder: Path, names: Sequence[str] = NAMES) -> int:
    """How many operations on files below `folder` the job does."""
    reading, writing = os.pipe()
    assert run_forked(job, lambda: _count(folder, lambda _: os.write(writing, b"."), names)) == 0
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        return len(pipe.read())


def _count(folder: Path, on_operation: Callable[[int], Any], names: Sequence[str]) -> None:
    """Calls `on_operation` with 1, 2, ... before each operation."""
    root, numbers = os.path.realpath(folder), itertools.count(1)

    def counted(function: Callable[..., Any], changes: Callable[..., bool]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if changes(root, *args, **options):
                on_operation(next(numbers))
            return function(*args, **options)

        return call

    for name in set(names) - {"open"}:
        setattr(os, name, counted(getattr(os, name), _inside))
    if "open" in names:
        builtins.open = io.open = counted(io.open, _writes)  # type: ignore[assignment]


def _inside(root: str, path: Any, *_more: Any, dir_fd: int | None = None, **_options: Any) -> bool:
    if dir_fd is not None:  # of shutil.rmtree
        path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
    if isinstance(path, int):
        path = os.readlink(f"/proc/self/fd/{path}")
    return os.path.realpath(os.fsdecode(path)).startswith(root)


def _writes(root: str, path: Any, mode: str = "r", *_more: Any, **_options: Any) -> bool:
    return any(letter in mode for letter in "wax+") and _inside(root, path)


def random_times(seconds: float, trials: int, seed: str) -> list[float]:
    """Times within the duration of a job, always the same ones for a seed."""
    chance = random.Random(seed)
    return [chance.uniform(0.001, seconds) for _ in range(trials)]


def state(folder: Path) -> dict[str, str]:
    """Name -> checksum of every file below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

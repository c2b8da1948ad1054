"""One job at a time at a place: a lock in a hidden folder, free again when its process ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"
_NO_LOCKS = -1  # in place of a handle
_one_thread = threading.Lock()
_locked_here: set[Path] = set()  # the locks of a process do not hold its own threads off


@contextmanager
def exclusive(folder: Path) -> Iterator[bool]:
    """Makes the folder where it is not there, and locks it; False: another process, or another
    thread, has it. Raises OSError.

    The lock is one that a forked process does not inherit: a stuck loader worker that outlives the
    capture would keep it.
    """
    with _one_thread:
        if folder in _locked_here:
            free = False
        else:
            free = True
            _locked_here.add(folder)
    handle = None
    try:
        handle = _lock_of(folder) if free else None
        yield handle is not None
    finally:
        if handle is not None and handle != _NO_LOCKS:
            os.close(handle)
        if free:
            with _one_thread:
                _locked_here.discard(folder)


def _lock_of(folder: Path) -> int | None:
    path = folder / LOCK
    while True:
        folder.mkdir(exist_ok=True)
        if fcntl is None:
            return _NO_LOCKS
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # whoever was here before has just removed the folder
            continue
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            os.close(handle)
            return None
        except OSError:  # a network disk without locks
            pass
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)


__all__ = ["LOCK", "exclusive"]

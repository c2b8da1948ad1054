"""The state of a capture that is not finished, beside the place of its run: `.NAME.checkpoint/`.

One file holds all of it, as arrays and JSON in an uncompressed npz: reading it runs nothing, and
the zip's checksums tell a damaged one. It is replaced in one step, so that whoever is killed leaves
the last whole state. The folder is locked while a capture works, where the system has locks: two
captures of one place would take each other's state.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probe.errors import ProbeError, UsageError, first_line
from probe.formatting import json_bytes
from probe.paths import user_path
from probe.store.disk import sync_folder, writing
from probe.store.files import Unsound, open_inside, read_inside
from probe.store.schema import MANIFEST
from probe.store.staging import stem

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FORMAT = "probe-checkpoint"
VERSION = 1
STATE = "state.npz"
_TEMPORARY = f".{STATE}.tmp"
_LOCK = "lock"
_NO_LOCKS = -1  # in place of a handle
_one_thread = threading.Lock()
_locked_here: set[Path] = set()  # the locks of a process do not hold its own threads off
_FACTS = "facts"  # JSON as bytes, beside the arrays

EVERY = 30.0  # seconds between two states, at least
SHARE = 1 / 60  # of the time, at most, goes into writing them
SLOW = 50e6  # bytes per second that any disk takes; what this one takes is measured


@dataclass(frozen=True)
class Saved:
    """A state as it was found: facts (JSON) and arrays."""

    facts: dict[str, Any]
    arrays: dict[str, NDArray]


class Checkpoint:
    """The place of the state of one capture that goes to `out`.

        with Checkpoint("runs/vit_b") as checkpoint:
            saved = checkpoint.read()  # of an interrupted capture, or None
            checkpoint.write({"done": 37}, arrays)
            checkpoint.remove()  # the run is finished

    Leaving the block keeps what was written. Entering raises UsageError where another capture works
    on this place.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out = Path(out)
        target = Path(os.path.realpath(user_path(out)))
        self.run = target
        self.folder = target.with_name(f".{stem(target)}.checkpoint")
        self._block = ExitStack()
        self._before: str | None = None
        self._saved = self._cost = 0.0
        self._rate = SLOW

    def __enter__(self) -> Checkpoint:
        with writing(self.out):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as block:
                if not block.enter_context(_locked(self.folder)):
                    raise UsageError(
                        f"{self.out} is being captured by another process: wait for it, or give "
                        "another folder"
                    )
                self._block = block.pop_all()
        self._before = _run_at(self.run)
        self._saved = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        self._block.close()

    def exists(self) -> bool:
        """Is there a state?"""
        return (self.folder / STATE).is_file()

    def read(self) -> Saved | None:
        """The state that is there; one that a later run at this place has outlived is removed.
        Raises ProbeError where it cannot be read.
        """
        if not self.exists():
            return None
        saved = self._load()
        if saved.facts.get("replaces") != self._before:
            self.remove()
            return None
        return saved

    def due(self, arrays: Mapping[str, NDArray] | None = None) -> bool:
        """Is it time for the next state? Seldom enough that all of them cost a share of SHARE.

        arrays: those of the state, whose size says what it will cost: states grow, and the first
        one has none before it.
        """
        if arrays is not None:
            self._cost = _size(arrays) / self._rate
        return time.monotonic() - self._saved >= max(EVERY, self._cost / SHARE)

    def write(self, facts: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> None:
        """Replaces the state. Raises ProbeError where the disk refuses; the old one is then as it
        was.
        """
        began = time.monotonic()
        head = {"format": FORMAT, "version": VERSION, "replaces": self._before, **facts}
        temporary = self.folder / _TEMPORARY
        with writing(self.folder):
            try:
                with temporary.open("wb") as file:
                    coded = np.frombuffer(json_bytes(head), np.uint8)
                    parts: dict[str, Any] = {_FACTS: coded, **arrays}
                    np.savez(file, **parts)  # uncompressed
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self.folder / STATE)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
            sync_folder(self.folder)
            sync_folder(self.folder.parent)
        self._saved = time.monotonic()
        self._cost = self._saved - began
        self._rate = _size(arrays) / self._cost

    def remove(self) -> None:
        """Drops the state; the folder and its lock stay until the block ends."""
        for name in (STATE, _TEMPORARY):
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)

    def _load(self) -> Saved:
        try:
            with open_inside(self.folder, STATE) as file, zipfile.ZipFile(file) as archive:
                _refuse_packed(archive, os.fstat(file.fileno()).st_size)
                file.seek(0)
                with np.load(file, allow_pickle=False) as found:
                    arrays = {name: found[name] for name in found.files}
            facts = json.loads(arrays.pop(_FACTS).tobytes())
            if facts["format"] != FORMAT or facts["version"] != VERSION:
                raise ValueError(f"state of version {facts['version']}, not {VERSION}")
        except (Unsound, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self.unusable(error) from None
        except (zipfile.BadZipFile, MemoryError, RecursionError, EOFError) as error:
            raise self.unusable(error) from None
        return Saved(facts, arrays)

    def unusable(self, error: BaseException) -> ProbeError:
        """The one line for a state that cannot be gone on from."""
        return ProbeError(
            f"{self.folder / STATE}: the state of the interrupted capture cannot be used "
            f"({first_line(error)}): --overwrite (overwrite=True) starts anew"
        )


def _size(arrays: Mapping[str, NDArray]) -> int:
    """Bytes, and one, so that there is a rate."""
    return 1 + sum(array.nbytes for array in arrays.values())


def _refuse_packed(archive: zipfile.ZipFile, size: int) -> None:
    """Raises ValueError for a file that would unfold to more than it is."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members) or size < sum(
        member.file_size for member in members
    ):
        raise ValueError("its parts are packed, as no capture writes them")


def _run_at(folder: Path) -> str | None:
    """What tells the run at this place from any other: when it was captured; None: no run."""
    try:
        manifest = json.loads(read_inside(folder, MANIFEST))
        return str(manifest["times"]["started"])
    except Unsound:
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return "unknown"


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
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
    path = folder / _LOCK
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


__all__ = ["Checkpoint", "Saved"]

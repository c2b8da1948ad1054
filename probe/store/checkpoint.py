"""What a job that is not finished keeps beside the place of its run, in `.NAME.checkpoint/`.

state.npz    how far the capture is, replaced in one step: whoever is killed leaves the last one
lock         held while a job works: two jobs at one place would take each other's state
NAME         the run of a job that replaces an old one: it takes the place when all is complete
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from probe.errors import ProbeError, UsageError, first_line
from probe.paths import user_path
from probe.store.disk import writing
from probe.store.files import Unsound, read_inside
from probe.store.lock import LOCK, exclusive
from probe.store.replacement import take_place
from probe.store.schema import MANIFEST
from probe.store.staging import clean, stem
from probe.store.state_file import STATE, TEMPORARY, Saved, read_state, write_state

EVERY = 30.0  # seconds between two states, at least
SHARE = 1 / 60  # of the time, at most, goes into writing them
SLOW = 50e6  # bytes per second that any disk takes; what this one takes is measured


class Checkpoint:
    """The place of the state of one job, whose run goes to `out`.

        with Checkpoint("runs/vit_b") as checkpoint:
            saved = checkpoint.read()  # of an interrupted job, or None
            checkpoint.write({"images": 37}, arrays)
            checkpoint.publish()  # the job is finished

    aside: the run is made in the folder of the state, and an old run stays until `publish`.
    Leaving the block keeps what was written. Entering raises UsageError where another job works on
    this place.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out = Path(out)
        self.run = Path(os.path.realpath(user_path(out)))
        self.folder = self.run.with_name(f".{stem(self.run)}.checkpoint")
        self.aside = False
        self._block = ExitStack()
        self._before: str | None = None
        self._saved = self._cost = 0.0
        self._rate = SLOW

    @property
    def place(self) -> Path:
        """Where the run is made."""
        return self.folder / self.run.name if self.aside else self.run

    def __enter__(self) -> Checkpoint:
        with writing(self.out):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as block:
                if not block.enter_context(exclusive(self.folder)):
                    raise UsageError(
                        f"{self.out} is being captured by another process: wait for it, or give "
                        "another folder"
                    )
                self._block = block.pop_all()
            clean(self.run)  # a killed job may have been about to replace an old run
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
        """The state that is there, `aside` as its job had it; one that a later run at this place
        has outlived is removed. Raises ProbeError where it cannot be read.
        """
        if not self.exists():
            return None
        try:
            saved = read_state(self.folder)
        except Unsound as reason:
            raise self.unusable(reason) from None
        self.aside = bool(saved.facts.get("aside"))
        captured = saved.facts.get("captured")
        if saved.facts.get("replaces") != self._before or (
            captured is not None and captured != _run_at(self.place)
        ):
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
        with writing(self.folder):
            write_state(
                self.folder, {"replaces": self._before, "aside": self.aside, **facts}, arrays
            )
        self._saved = time.monotonic()
        self._cost = self._saved - began
        self._rate = _size(arrays) / self._cost

    def captured(self, facts: Mapping[str, Any]) -> None:
        """The capture is complete and its run is at `place`; the job goes on. Raises ProbeError."""
        self._before = _run_at(self.run)
        self.write({**facts, "captured": _run_at(self.place)}, {})

    def publish(self) -> None:
        """The job is finished: its run has the name that the user gave, and the state goes. Raises
        ProbeError; then the state is still there.
        """
        if self.aside:
            take_place(self.place, self.out)
            self.aside = False
        self.remove()

    def remove(self) -> None:
        """Drops the state, and the run of its job; the folder and its lock stay until the block
        ends.
        """
        self.forget()
        self.aside = False
        for path in self.folder.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path, ignore_errors=True)

    def forget(self) -> None:
        """Drops the state alone: nothing shows what it is of."""
        for name in (STATE, TEMPORARY):
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)

    def unusable(self, error: BaseException) -> ProbeError:
        """The one line for a state that cannot be gone on from."""
        return ProbeError(
            f"{self.folder / STATE}: the state of the interrupted capture cannot be used "
            f"({first_line(error)}): --overwrite (overwrite=True) starts anew"
        )


def _size(arrays: Mapping[str, NDArray]) -> int:
    """Bytes, and one, so that there is a rate."""
    return 1 + sum(array.nbytes for array in arrays.values())


def _run_at(folder: Path) -> str | None:
    """What tells the run at this place from any other: when it was captured; None: no run."""
    try:
        manifest = json.loads(read_inside(folder, MANIFEST))
        return str(manifest["times"]["started"])
    except Unsound:
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return "unknown"


__all__ = ["Checkpoint", "Saved"]

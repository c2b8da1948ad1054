"""A job's files take their place together: all of them at its end, or none."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from probe.errors import ProbeError
from probe.store.disk import ELSEWHERE, write_file, writing
from probe.store.files import Unsound, entry_of
from probe.store.journal import commit, finish, locked, settle, settle_locked
from probe.store.listing import CAPTURE, generation, listed
from probe.store.manifest import read_manifest
from probe.store.staging import aside


class Step:
    """Puts files into one folder, all of them at the end of the block or, after an error, none.

        with Step(out.parent) as step:
            step.put(out, model)
            step.put(out.with_suffix(".csv"), table)

    reads: runs that the files are made of; another job may not change their results meanwhile.
    instead: what to do where the folder cannot be written.
    Entering raises ProbeError where the folder cannot be written, before any work; leaving it,
    where the disk refuses, and where a run changed. Then all is as it was.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        reads: Sequence[Path] = (),
        instead: str = ELSEWHERE,
    ) -> None:
        self.folder = Path(folder)
        self._root = Path(os.path.realpath(folder))
        self._place = aside(self._root)
        self._pending: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count()
        self._reads, self._instead = tuple(reads), instead
        self._made: list[Path] = []  # folders that were not there
        self._committed = False

    def __enter__(self) -> Step:
        self._before = self._read()
        with writing(self.folder, self._instead):
            self._made = [each for each in (self._root, *self._root.parents) if not each.exists()]
            self._root.mkdir(parents=True, exist_ok=True)
            settle(self._root)
            self._place.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None and self._pending:
                with writing(self.folder, self._instead), locked(self._root):
                    settle_locked(self._root, self._place)
                    self._commit()
        finally:
            self._clear()

    def put(self, path: str | os.PathLike[str], data: Any) -> Path:
        """Writes a bytes-like object that will be at `path`, in this folder or in one of its own.
        Raises ProbeError where the disk refuses.
        """
        path = Path(path)
        name = name_inside(self._root, path)
        if name is None:
            raise ValueError(f"{path} is not in {self.folder}")
        temporary = str(next(self._numbers))
        with writing(path):
            write_file(self._place / temporary, data)
        self._pending[name] = {**entry_of(data), "from": temporary}
        return path

    def _commit(self) -> None:
        for run, before, now in zip(self._reads, self._before, self._read(), strict=True):
            if before != now:
                raise _changed(run, before, now)
        commit(self._place, self._pending)
        self._committed = True
        finish(self._root, self._place)

    def _read(self) -> list[dict[str, str]]:
        """The generation of each run that the files are made of."""
        return [generation(listed(read_manifest(run))) for run in self._reads]

    def _clear(self) -> None:
        if self._committed:  # a signal may have come in between
            with suppress(OSError, Unsound):
                finish(self._root, self._place)
        shutil.rmtree(self._place, ignore_errors=True)
        for folder in () if self._committed else self._made:
            with suppress(OSError):
                folder.rmdir()


def check_folder(folder: Path, instead: str = ELSEWHERE) -> None:
    """Raises ProbeError for a folder that cannot be written: before the work, not after."""
    with Step(folder, instead=instead):
        pass


def _changed(run: Path, before: dict[str, str], now: dict[str, str]) -> ProbeError:
    """What was read may be of two generations."""
    overwritten = before[CAPTURE] != now[CAPTURE]
    by = "overwritten by another capture" if overwritten else "fitted again by another job"
    return ProbeError(f"{run} was {by} meanwhile: nothing was written; do it again")


def name_inside(root: Path, path: Path) -> str | None:
    """The name of `path` in a folder at `root`, links followed in its folder; None outside."""
    place = Path(os.path.realpath(path.parent))
    if not place.is_relative_to(root):
        return None
    return (place / path.name).relative_to(root).as_posix()

"""What jobs put into a run after its capture: the one place where its files and its list change.

A job's files are written aside, then take their names and enter the list (`files` in the manifest)
together. The list comes last: a job that is killed in between leaves files that do not match it,
which every reader refuses and `verify` names, and never two generations that are read as one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from probe.errors import ProbeError, UsageError
from probe.store.disk import replace_file, sync_folder, write_file, writing
from probe.store.files import Unsound, entry_of, own_folder, read_inside
from probe.store.listing import (
    capture_checksum,
    has_list_of_results,
    is_result,
    listed,
    remedy,
    sources,
)
from probe.store.manifest import read_manifest, write_manifest
from probe.store.schema import FIGURES, MANIFEST
from probe.store.staging import aside, clean_aside


class Results:
    """Puts files into a run, all of them at the end of the block or, after an error, none.

        with Results(run.path) as results:
            results.put(run.path / "fits.parquet", data)
            results.put(run.path / "alpha.csv", text)

    What does not belong into the run (`--out`) is written at once, and is in no list. Entering
    raises UsageError where there is no run, leaving it raises ProbeError where the disk refuses.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._root = Path(os.path.realpath(folder))
        self._entries: dict[str, dict[str, Any]] = {}
        self._aside: dict[str, Path] = {}
        self._place: Path | None = None

    def __enter__(self) -> Results:
        self._before = read_manifest(self.folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None and self._aside:
                with writing(self.folder):
                    self._commit()
        finally:
            if self._place is not None:
                shutil.rmtree(self._place, ignore_errors=True)

    def put(self, path: str | os.PathLike[str], data: Any) -> Path:
        """Writes a bytes-like object to `path`. Raises ProbeError where the disk refuses, and where
        a folder of the run is a link that leads out of it.
        """
        path = Path(path)
        name = _name_inside(self._root, path)
        if name is None or not is_result(name):
            return replace_file(path, data)
        if self._place is None:
            self._place = aside(self._root)
            with writing(self.folder):
                clean_aside(self._root)
                self._place.mkdir()
        temporary = self._place / str(len(self._aside))
        with writing(path):
            write_file(temporary, data)
        self._aside[name], self._entries[name] = temporary, entry_of(data)
        return path

    def _commit(self) -> None:
        with _locked(self._root):
            manifest = read_manifest(self.folder)
            was, now = listed(self._before), listed(manifest)
            if capture_checksum(was) != capture_checksum(now):
                raise ProbeError(
                    f"{self.folder} was overwritten by another capture meanwhile: nothing was "
                    "written; do it again"
                )
            for name, temporary in self._aside.items():
                (self._root / name).parent.mkdir(exist_ok=True)
                temporary.replace(self._root / name)
            if has_list_of_results(manifest):
                new = {name: {**entry, "from": {}} for name, entry in self._entries.items()}
                made = {
                    name: {**entry, "from": sources(name, {**was, **new})}
                    for name, entry in new.items()
                }
                manifest["files"] = dict(sorted({**now, **made}.items()))
                write_manifest(self._root, manifest)
            sync_folder(self._root)


def put(path: str | os.PathLike[str], data: Any) -> Path:
    """Puts a bytes-like object at `path` in one step; into the list too, where that is the place of
    a result of a run. Raises ProbeError; then the old file is untouched.
    """
    folder = _run_of(Path(path))
    if folder is None:
        return replace_file(path, data)
    with Results(folder) as results:
        return results.put(path, data)


def result_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file, which a run's list must know where it lies in the place of a result of
    a run. Raises ProbeError where it is damaged, OSError where it cannot be read.
    """
    path = Path(path)
    folder = _run_of(path)
    if folder is None:
        return path.read_bytes()
    manifest = read_manifest(folder)
    name = _name_inside(Path(os.path.realpath(folder)), path) or path.name
    entry = listed(manifest).get(name)
    try:
        if entry is None and has_list_of_results(manifest):
            raise Unsound("is not in the list of files of this run")
        return read_inside(folder, name, entry)
    except Unsound as reason:
        raise ProbeError(f"{path}: {reason}; {remedy(name, str(folder))}") from None


def figures_folder(run: Path) -> Path:
    """The folder for the figures of a run. Raises UsageError where it is a link to elsewhere."""
    try:
        return own_folder(run, FIGURES)
    except Unsound as reason:
        raise UsageError(
            f"{run / FIGURES} {reason}: remove it, or give another folder by --out DIR"
        ) from None


def _run_of(path: Path) -> Path | None:
    """The run that has a place for a file of this path; None: it is no result of a run."""
    for folder in (path.parent, path.parent.parent):
        name = _name_inside(Path(os.path.realpath(folder)), path)
        if name is not None and is_result(name) and (folder / MANIFEST).is_file():
            with suppress(UsageError):
                read_manifest(folder)
                return folder
    return None


def _name_inside(root: Path, path: Path) -> str | None:
    """The name of `path` in a run at `root`, links followed in its folder; None outside of it."""
    place = Path(os.path.realpath(path.parent))
    if not place.is_relative_to(root):
        return None
    return (place / path.name).relative_to(root).as_posix()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One job at a time changes the list, where the system has locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network disk without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

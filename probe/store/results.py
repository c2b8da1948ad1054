"""What jobs put into a run after its capture: the one place where its files and its list change.

A job's files and the list (`files` in the manifest) take their places together, in one step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from probe.errors import ProbeError, UsageError
from probe.store.disk import ELSEWHERE, write_file
from probe.store.files import Unsound, entry_of, own_folder, read_inside
from probe.store.journal import settle
from probe.store.listing import has_list_of_results, is_result, listed, remedy, sources
from probe.store.manifest import read_manifest, sealed
from probe.store.remote import check_writable, upload
from probe.store.schema import FIGURES, MANIFEST
from probe.store.step import Step, name_inside


class Results(Step):
    """Puts files into a run, all of them at the end of the block or, after an error, none.

        with Results(run.path) as results:
            results.put(run.path / "fits.parquet", data)
            results.put(run.path / "alpha.csv", text)

    What does not belong into the run (`--out`) is written at once, and is in no list. Entering
    raises UsageError where there is no run and ProbeError where it cannot be written, before any
    work; leaving it raises ProbeError where the disk refuses, and where another job changed what
    the files are made of.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        instead: str = ELSEWHERE,
        reads: Sequence[Path] = (),
    ) -> None:
        super().__init__(folder, [Path(folder), *reads], instead)

    def __enter__(self) -> Results:
        check_writable(self.folder, self._instead)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self._committed:
            upload(self.folder)

    def put(self, path: str | os.PathLike[str], data: Any) -> Path:
        """Writes a bytes-like object to `path`. Raises ProbeError where the disk refuses."""
        path = Path(path)
        if name_inside(self._root, path) is None:
            return _put_elsewhere(path, data)
        return super().put(path, data)

    def _commit(self) -> None:
        manifest = read_manifest(self.folder)
        made = {name: entry for name, entry in self._pending.items() if is_result(name)}
        if has_list_of_results(manifest) and made:
            now = listed(manifest)
            new = {name: _listed_entry(entry) for name, entry in made.items()}
            bound = {
                name: {**entry, "from": sources(name, {**now, **new})}
                for name, entry in new.items()
            }
            manifest["files"] = dict(sorted({**now, **bound}.items()))
            data = sealed(manifest)
            temporary = str(next(self._numbers))
            write_file(self._place / temporary, data)
            self._pending[MANIFEST] = {**entry_of(data), "from": temporary}
        super()._commit()


def _listed_entry(entry: dict[str, Any]) -> dict[str, Any]:
    return {"bytes": entry["bytes"], "sha256": entry["sha256"], "from": {}}


def _put_elsewhere(path: Path, data: Any) -> Path:
    with Step(path.parent) as step:
        return step.put(path, data)


def step_into(
    path: str | os.PathLike[str], reads: Sequence[Path] = (), instead: str = ELSEWHERE
) -> Step:
    """The step of a job whose files lie where `path` lies: they enter the list, too, where that is
    the place of a result of a run. reads: runs that they are made of.
    """
    run = _run_of(Path(path))
    return Step(Path(path).parent, reads, instead) if run is None else Results(run, instead, reads)


def put(path: str | os.PathLike[str], data: Any) -> Path:
    """Puts a bytes-like object at `path` in one step; into the list too, where that is the place of
    a result of a run. Raises ProbeError; then the old file is untouched.
    """
    folder = _run_of(Path(path))
    if folder is None:
        return _put_elsewhere(Path(path), data)
    with Results(folder) as results:
        return results.put(path, data)


def result_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file, which a run's list must know where it lies in the place of a result of
    a run. Raises ProbeError where it is damaged, OSError where it cannot be read.
    """
    path = Path(path)
    folder = _run_of(path)
    if folder is None:
        settle(path.parent)
        return path.read_bytes()
    settle(folder)
    manifest = read_manifest(folder)
    name = name_inside(Path(os.path.realpath(folder)), path) or path.name
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
        name = name_inside(Path(os.path.realpath(folder)), path)
        if name is not None and is_result(name) and (folder / MANIFEST).is_file():
            with suppress(UsageError):
                read_manifest(folder)
                return folder
    return None

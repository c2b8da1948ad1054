"""Several files of one folder take their names in one step, whatever happens in between.

    .PID-HOST-TOKEN.results/0, 1, 2    the new contents, written aside
    .PID-HOST-TOKEN.results/journal    their names; that it is there is the commit
    fits.parquet, alpha.csv, ...       then each is renamed, and the place goes

A job that is killed before its journal is there leaves everything as it was, and its place is
removed by whoever comes next. One that is killed later has done its work: whoever opens the folder
next gives the remaining files their names.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from probe.formatting import json_bytes
from probe.store.disk import sync_folder, write_file
from probe.store.files import Unsound, check_content, is_inside, own_folder, read_inside
from probe.store.staging import asides, is_abandoned

JOURNAL = "journal"
Pending = Mapping[str, Mapping[str, Any]]  # name in the folder -> bytes, sha256, from


def commit(place: Path, pending: Pending) -> None:
    """From here on the files in `place` are those of the folder. Raises OSError; then they are
    not.
    """
    sync_folder(place)  # the files have their names there before the journal names them
    unnamed = place / f"{JOURNAL}.unfinished"
    write_file(unnamed, json_bytes({"files": dict(pending)}))
    unnamed.rename(place / JOURNAL)
    sync_folder(place)
    sync_folder(place.parent)


def finish(root: Path, place: Path) -> None:
    """Gives what a journal names its names in `root`. What has its name already stays: two
    processes may do this at once, and one may do it twice. Raises OSError, Unsound.
    """
    pending = read_journal(place)
    if pending is None:
        return
    for name, entry in pending.items():
        if "/" in name:
            own_folder(root, os.path.dirname(name))
        _check(place, entry)
    for name, entry in pending.items():
        (root / name).parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # it has its name already
            (place / entry["from"]).replace(root / name)
    for folder in {(root / name).parent for name in pending}:
        sync_folder(folder)


def _check(place: Path, entry: Mapping[str, Any]) -> None:
    """Raises Unsound for a file that changed since it was written aside; none is left of one that
    has its name.
    """
    try:
        check_content(place, entry["from"], entry)
    except Unsound:
        if os.path.lexists(place / entry["from"]):
            raise


def read_journal(place: Path) -> Pending | None:
    """Name of each file -> its entry; None where nothing was committed. Raises Unsound for a
    journal that is damaged, or that names a place outside of its folder.
    """
    if not os.path.lexists(place / JOURNAL):
        return None
    try:
        files = json.loads(read_inside(place, JOURNAL))["files"]
        sound = all(
            is_inside(name)
            and name.count("/") < 2
            and _is_plain(entry["from"])
            and isinstance(entry["bytes"], int)
            and isinstance(entry["sha256"], str)
            for name, entry in files.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise Unsound("is no journal")
    return files


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and name.isdecimal()


def settle(folder: str | os.PathLike[str]) -> None:
    """Finishes what killed jobs had committed in a folder, removes what they had not; a commit that
    is under way is waited for. Does nothing where the folder cannot be written.
    """
    root = Path(os.path.realpath(folder))
    with suppress(OSError):
        if asides(root):
            with locked(root):
                settle_locked(root)


def settle_locked(root: Path, own: Path | None = None) -> None:
    """The same, for who holds the lock; `own`: the place of the job that is about to commit."""
    for place in asides(root):
        if place == own:
            continue
        if place.is_dir() and os.path.lexists(place / JOURNAL):
            with suppress(OSError, Unsound):
                finish(root, place)
            shutil.rmtree(place, ignore_errors=True)
        elif is_abandoned(place):
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One job at a time changes the files of a folder, where the system has locks."""
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

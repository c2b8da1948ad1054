"""Where something may be written: one check of every path that a user gives, before any work."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from probe.errors import UsageError
from probe.paths import is_address, user_path
from probe.store.disk import writing
from probe.store.files import Unsound, read_inside
from probe.store.listing import is_result
from probe.store.remote import fetched, remote_run
from probe.store.remote_run import RemoteRun
from probe.store.schema import CONTENTS, FORMAT, MANIFEST
from probe.store.staging import is_hidden, is_left_over

OVERWRITE = "--overwrite (overwrite=True)"
NO_CONTENT = (".DS_Store",)  # what a file manager leaves in a folder that is empty for people


def output_file(
    path: str | os.PathLike[str],
    example: str,
    *,
    endings: Sequence[str] = (),
    beside: Sequence[str] = (),
    overwrite: bool = True,
    option: str = "--out",
) -> Path:
    """The file to write, `~` expanded.

    example: a file name that would do. endings: those accepted, none: all. beside: endings of files
    that are written with it. Raises UsageError for another ending and for a folder, and without
    `overwrite` where one of the files is there.
    """
    file = _result_at(path, option) if is_address(path) else user_path(path)
    if endings and file.suffix not in endings:
        raise UsageError(f"{option} {path}: must end in {_either(endings)}")
    if file.is_dir():
        raise UsageError(f"{option} {path} is a folder; give a file, such as {file / example}")
    for each in (file, *(file.with_suffix(ending) for ending in beside)):
        if each.exists() and not overwrite:
            raise UsageError(f"{option} {each} exists; give another file, or {OVERWRITE}")
    return file


def output_folder(path: str | os.PathLike[str]) -> Path:
    """The folder to write files into, `~` expanded, made where it is not there.

    Raises UsageError for a file, ProbeError where it cannot be made.
    """
    folder = on_this_machine(path)
    _refuse_file(folder, path)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def on_this_machine(path: str | os.PathLike[str]) -> Path:
    """A path of this machine, `~` expanded. Raises UsageError for an address: of what this package
    writes only runs go there.
    """
    if is_address(path):
        raise UsageError(
            f"{path} is an address, where runs can be written and nothing else: give a path on "
            "this machine"
        )
    return user_path(path)


def output_copy(
    out: str | os.PathLike[str], overwrite: bool = False, whole: bool = False
) -> tuple[str | os.PathLike[str], bool]:
    """Where the run that will be at `out` is made: `out` itself, or the copy of an address; and
    whether an upload that had failed is complete now, so that the job is done.

    whole: what is there now is fetched, not its manifest alone. Raises UsageError for an address
    that is taken, ProbeError for one that cannot be written.
    """
    if not is_address(out):
        return out, False
    remote = remote_run(str(out))
    with remote.held():
        sent = not overwrite and remote.send_rest()
        if not sent:
            _get_ready(remote, overwrite, whole)
            if not (whole and is_run(remote.folder)):  # which may only be read
                remote.storage.check_writable()
    return remote.folder, sent


def _get_ready(remote: RemoteRun, overwrite: bool, whole: bool) -> None:
    names = [name for name in remote.storage.names() if name not in NO_CONTENT]
    if overwrite and remote.rest():
        remote.take_over()
    elif whole and MANIFEST in names:
        remote.fetch()
    else:
        remote.fetch_manifest()
    if names and not is_run(remote.folder):
        raise _no_run(remote.address, names)
    if overwrite:
        _refuse_foreign(remote.address, names)


def output_run(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """The absolute path of a run that may be written. Raises UsageError for a place that is taken:
    by anything at all, with `overwrite` by anything but a run.
    """
    folder = Path(os.path.realpath(user_path(path)))
    if is_hidden(folder):
        raise UsageError(
            f"{path}: names of this form belong to runs that are being written; give another folder"
        )
    _refuse_file(folder, path)
    names = _contents(folder)
    if not names:
        return folder
    if not is_run(folder):
        raise _no_run(path, names)
    if not overwrite:
        raise UsageError(f"{path} already holds a run; give another folder, or {OVERWRITE}")
    _refuse_foreign(path, names)
    return folder


def _no_run(path: str | os.PathLike[str], names: Sequence[str]) -> UsageError:
    return UsageError(
        f"{path} is no run and holds other files ({_first(names)}); give a new or an empty folder"
    )


def _refuse_foreign(path: str | os.PathLike[str], names: Sequence[str]) -> None:
    foreign = [name for name in names if name not in CONTENTS and not is_left_over(name)]
    if foreign:
        raise UsageError(
            f"{path} holds files that are no part of a run ({_first(foreign)}); move them before "
            "overwriting it"
        )


def _result_at(address: str | os.PathLike[str], option: str) -> Path:
    """A file of the run at an address, in the copy of the run."""
    folder, _, name = str(address).rpartition("/")
    if not is_result(name):
        raise UsageError(
            f"{option} {address}: only files of a run lie at an address; give a file on this "
            "machine"
        )
    return fetched(folder) / name


def _refuse_file(folder: Path, path: str | os.PathLike[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{path} is a file; give a folder")


def _contents(folder: Path) -> list[str]:
    if not folder.exists():
        return []
    with writing(folder):
        return sorted(each.name for each in folder.iterdir() if each.name not in NO_CONTENT)


def is_run(path: str | os.PathLike[str]) -> bool:
    """Does this folder hold a run, whole or damaged?"""
    try:
        manifest = json.loads(read_inside(user_path(path), MANIFEST))
    except (OSError, Unsound, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def _either(words: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")

"""Opening what a run names: regular files inside its folder, and nothing else.

A run may come from a stranger. A name that leads out of it, a link to elsewhere, a pipe or a device
is refused before a byte is read: a pipe would block, a device never ends.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

CHUNK = 1 << 20  # bytes
# a pipe is opened without waiting for its writer, a link at the end of the path not at all
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"))


class Unsound(Exception):
    """A file that is not what the run says, or that is none; the text says why, in a few words."""


def is_inside(name: Any) -> bool:
    """Is this a plain relative path, as a run names its files: `samples/000-norm.parquet`?"""
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name:
        return False
    path = PurePosixPath(name)
    return (
        bool(path.parts)
        and str(path) == name
        and not path.is_absolute()
        and ".." not in path.parts
        and ":" not in path.parts[0]  # a drive
    )


def open_inside(folder: Path, name: str) -> IO[bytes]:
    """A regular file inside `folder`, open for reading. Raises Unsound."""
    if not is_inside(name):
        raise Unsound("is no path inside of the run")
    root, path = os.path.realpath(folder), os.path.realpath(folder / name)
    if os.path.commonpath([root, path]) != root:
        raise Unsound("is a link that leads out of the run")
    try:
        handle = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError as error:
        raise Unsound(f"missing or unreadable ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Unsound("is no regular file")
    return os.fdopen(handle, "rb")


def entry_of(data: Any) -> dict[str, Any]:
    """What the list of a run says of a file of this content."""
    return {"bytes": memoryview(data).nbytes, "sha256": hashlib.sha256(data).hexdigest()}


class EntryWriter(io.RawIOBase):
    """Hands on to `file` what is written, and makes of it the entry of the list: nobody has to read
    it again.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._bytes, self._digest = file, 0, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(data)
        self._digest.update(data)
        size = memoryview(data).nbytes
        self._bytes += size
        return size

    @property
    def entry(self) -> dict[str, Any]:
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


def check_content(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Compares a file with its entry, in pieces. Raises Unsound."""
    with open_inside(folder, name) as file:
        _compare_size(file, entry)
        digest = hashlib.sha256()
        try:
            while piece := file.read(CHUNK):
                digest.update(piece)
        except OSError as error:
            raise Unsound(f"missing or unreadable ({error.strerror})") from error
    _compare_digest(digest.hexdigest(), entry)


def read_inside(folder: Path, name: str, entry: Mapping[str, Any] | None = None) -> bytes:
    """The content of a file, equal to its entry where there is one. Raises Unsound.

    The bytes that were compared are the bytes that are returned: a file that changes in between
    cannot pass.
    """
    with open_inside(folder, name) as file:
        if entry is not None:
            _compare_size(file, entry)
        try:
            data = file.read()
        except OSError as error:
            raise Unsound(f"missing or unreadable ({error.strerror})") from error
        except MemoryError:
            raise Unsound("is larger than the memory") from None
    if entry is not None:
        _compare_digest(hashlib.sha256(data).hexdigest(), entry)
    return data


def present(folder: Path) -> list[str]:
    """Names of everything below `folder` that is no folder, links among them, sorted."""
    names = []
    for place, folders, files in os.walk(folder):  # follows no link
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        names += [os.path.relpath(os.path.join(place, name), folder) for name in (*files, *links)]
    return sorted(name.replace(os.sep, "/") for name in names)


def own_folder(folder: Path, name: str) -> Path:
    """`folder`/`name`, which may not be there yet. Raises Unsound where it leads elsewhere."""
    path = folder / name
    inside = False
    with suppress(OSError):
        inside = os.path.realpath(path) == os.path.join(os.path.realpath(folder), name)
    if not inside:
        raise Unsound("is a link that leads out of the run")
    return path


def _compare_size(file: IO[bytes], entry: Mapping[str, Any]) -> None:
    size = os.fstat(file.fileno()).st_size
    if size != entry["bytes"]:
        raise Unsound(f"the content changed ({size} bytes, the manifest says {entry['bytes']})")


def _compare_digest(digest: str, entry: Mapping[str, Any]) -> None:
    if digest != entry["sha256"]:
        raise Unsound("the content changed (sha256 differs from the manifest)")

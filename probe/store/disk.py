"""Writing a file so that the disk has it, and what to say when the disk refuses."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from probe.errors import ProbeError, first_line, shown

FULL = frozenset(
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)
)


ELSEWHERE = "choose another place or change its permissions"


def write_error(
    error: OSError, path: str | os.PathLike[str], instead: str = ELSEWHERE
) -> ProbeError:
    """The one line for a write below `path` that the file system refused; `instead`: what to do."""
    reason = error.strerror or first_line(error)
    place = os.fspath(path)
    if shown(place) != place:  # the message will name the address
        place = f"{place} (the copy on this machine)"
    if error.errno in FULL:
        advice = "free some space, choose another disk, or keep less (fewer samples)"
        return ProbeError(
            f"{place}: the disk is full ({reason}; {_free(Path(path))} free): {advice}"
        )
    return ProbeError(f"{place}: cannot be written ({reason}): {instead}")


def _free(path: Path) -> str:
    """Space left where `path` is, or would be."""
    for place in (path, *path.absolute().parents):
        with suppress(OSError):
            return f"{shutil.disk_usage(place).free / 1e6:,.0f} MB"
    return "an unknown amount"


@contextmanager
def writing(path: str | os.PathLike[str], instead: str = ELSEWHERE) -> Iterator[None]:
    """Turns an OSError of the body into the one line about `path`."""
    try:
        yield
    except OSError as error:
        raise write_error(error, path, instead) from error


@contextmanager
def durable(path: Path) -> Iterator[IO[bytes]]:
    """A new file, which the disk has when the block ends. Raises OSError; after any error nothing
    is left at `path`.
    """
    try:
        with path.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def write_file(path: Path, data: Any) -> None:
    """Writes a bytes-like object and waits until the disk has it. Raises OSError; then nothing is
    left at `path`.
    """
    with durable(path) as file:
        file.write(data)


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable, where the system can (not on Windows, nor on some
    network disks).
    """
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

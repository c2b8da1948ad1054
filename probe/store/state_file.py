"""The state of a job in one file: arrays and JSON in an uncompressed npz. Reading it runs nothing,
and the zip's checksums tell a damaged one.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probe.formatting import json_bytes
from probe.store.disk import sync_folder
from probe.store.files import Unsound, open_inside

FORMAT = "probe-checkpoint"
VERSION = 2  # one more where what the accumulators of probe.stats keep is another
STATE = "state.npz"
TEMPORARY = f".{STATE}.tmp"
_FACTS = "facts"  # JSON as bytes, beside the arrays
# what reading a file of any content may raise
_UNREADABLE = (
    Unsound,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    MemoryError,
    RecursionError,
    EOFError,
)


@dataclass(frozen=True)
class Saved:
    """A state as it was found: facts (JSON) and arrays."""

    facts: dict[str, Any]
    arrays: dict[str, NDArray]


def write_state(folder: Path, facts: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> None:
    """Replaces the state in a folder once the disk has the new one. Raises OSError; the old one is
    then as it was.
    """
    temporary = folder / TEMPORARY
    head = {"format": FORMAT, "version": VERSION, **facts}
    parts: dict[str, Any] = {_FACTS: np.frombuffer(json_bytes(head), np.uint8), **arrays}
    try:
        with temporary.open("wb") as file:
            np.savez(file, **parts)  # uncompressed
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / STATE)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    sync_folder(folder.parent)


def read_state(folder: Path) -> Saved:
    """Raises Unsound where the state cannot be read, or is none that a job wrote."""
    try:
        with open_inside(folder, STATE) as file, zipfile.ZipFile(file) as archive:
            _refuse_packed(archive, os.fstat(file.fileno()).st_size)
            file.seek(0)
            with np.load(file, allow_pickle=False) as members:
                arrays = {name: members[name] for name in members.files}
        facts = json.loads(arrays.pop(_FACTS).tobytes())
        if facts["format"] != FORMAT or facts["version"] != VERSION:
            raise ValueError(f"state of version {facts['version']}, not {VERSION}")
    except _UNREADABLE as error:
        raise Unsound(str(error) or type(error).__name__) from None
    return Saved(facts, arrays)


def _refuse_packed(archive: zipfile.ZipFile, size: int) -> None:
    """Raises ValueError for a file that would unfold to more than it is."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members) or size < sum(
        member.file_size for member in members
    ):
        raise ValueError("its parts are packed, as no capture writes them")


__all__ = ["STATE", "TEMPORARY", "Saved", "read_state", "write_state"]

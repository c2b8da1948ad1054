"""Where copies of runs at addresses are kept on this machine, and what is known of each.

<cache of the user>/probe-norms/runs/KEY/     one folder for each address
    NAME/               the copy, a run as any other
    .NAME.checkpoint/   what an interrupted capture left, as beside every run
    record.json         how far the copy and the address agree

The cache of the user is `XDG_CACHE_HOME`, else `~/.cache`, else a folder of this user alone in the
system's place for temporary files.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from probe.errors import ProbeError
from probe.formatting import json_bytes
from probe.private import private_folder
from probe.store.disk import write_file, writing
from probe.store.files import Unsound, read_inside

RECORD = "record.json"


@dataclass
class Record:
    """What is known of the run at an address.

    base: checksum of the manifest that the copy and the address last had both; None: none.
    sent: checksums of files that are there already, of an upload that did not come to its end.
    damaged: files that are not there what the manifest says, so that the copy has not them either.
    """

    base: str | None = None
    sent: dict[str, str] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)


def read_record(folder: Path) -> Record:
    """Of one that cannot be read nothing is known."""
    try:
        record = Record(**json.loads(read_inside(folder, RECORD)))
    except (Unsound, ValueError, TypeError, RecursionError):
        return Record()
    sound = isinstance(record.sent, dict) and isinstance(record.damaged, list)
    return record if sound else Record()


def write_record(folder: Path, record: Record) -> None:
    """Replaces it in one step. Raises ProbeError where the disk refuses."""
    temporary = folder / f"{RECORD}.tmp"
    with writing(folder):
        write_file(temporary, json_bytes(asdict(record)))
        temporary.replace(folder / RECORD)


def folder_for(address: str) -> Path:
    """The folder for the copy of an address, made where it is not there. Raises ProbeError."""
    text = address.rstrip("/")
    if "memory://" in text:  # each process has a memory of its own
        text = f"{text} {os.getpid()}"
    folder = cache_folder() / hashlib.sha256(text.encode()).hexdigest()[:24]
    with writing(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def cache_folder() -> Path:
    """The folder for all copies. Raises ProbeError where there is no place for it."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "probe-norms" / "runs"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    except (OSError, RuntimeError):  # a user without a home
        pass
    if (made := private_folder("runs")) is not None:
        return made[0]
    raise ProbeError(
        "there is no place for a copy of the run on this machine: set XDG_CACHE_HOME to a folder "
        "that can be written to"
    )


__all__ = ["Record", "cache_folder", "folder_for", "read_record", "write_record"]

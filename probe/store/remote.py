"""Runs at addresses, for those who open, make and change runs: what they do on this machine to the
copy of such a run, `upload` brings to its address. A folder that is no copy is left alone.
"""

from __future__ import annotations

import os
from pathlib import Path

from probe.errors import ProbeError
from probe.store.disk import ELSEWHERE
from probe.store.remote_run import RemoteRun
from probe.store.storage import StorageError

_opened: dict[Path, RemoteRun] = {}  # folder of the copy -> its run


def remote_run(address: str) -> RemoteRun:
    """The run at an address, whatever is there; its copy is known from here on. Raises UsageError
    for an address that cannot be opened.
    """
    run = RemoteRun(address)
    _opened[Path(os.path.realpath(run.folder))] = run
    return run


def copy_of(address: str) -> Path:
    """The place of the copy of the run at an address, whatever is there. Raises UsageError."""
    return remote_run(address).folder


def fetched(address: str, anew: bool = False) -> Path:
    """The copy of the run at an address, as it is there now. Raises UsageError, ProbeError."""
    remote = remote_run(address)
    with remote.held():
        remote.send_rest()
        remote.fetch(anew)
    return remote.folder


def upload(folder: Path) -> None:
    """Sends what a job has put into the copy of a run; does nothing for any other folder. Raises
    ProbeError.
    """
    if (remote := _opened.get(Path(os.path.realpath(folder)))) is not None:
        with remote.held():
            remote.send()


def check_writable(folder: Path, instead: str = ELSEWHERE) -> None:
    """Raises ProbeError for the copy of a run whose address cannot be written, before any work."""
    remote = _opened.get(Path(os.path.realpath(folder)))
    try:
        if remote is not None:
            remote.storage.check_writable()
    except StorageError as error:
        raise ProbeError(f"{folder}: cannot be written ({error.reason}): {instead}") from error


__all__ = ["check_writable", "copy_of", "fetched", "remote_run", "upload"]

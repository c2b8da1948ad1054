"""A run at an address is worked on in a copy on this machine, by the code of every run.

To read it, what changed there is fetched into the copy. When a job has put its files into the copy,
what changed is sent, the manifest last: nobody meets one that names files which are not there yet.
A copy with a manifest that never arrived is sent by whoever opens the address next.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from probe.errors import ProbeError, UsageError, stands_for
from probe.store.copies import Record, folder_for, read_record, write_record
from probe.store.disk import write_file, writing
from probe.store.files import Unsound, check_content, entry_of, is_inside, present, read_inside
from probe.store.journal import locked, settle
from probe.store.listing import Entries, belongs, capture_checksum, listed
from probe.store.manifest import checked_manifest
from probe.store.schema import MANIFEST
from probe.store.staging import bring_back
from probe.store.step import Step
from probe.store.storage import Storage, StorageError

TRIES = 3  # to fetch a run that changes meanwhile


class RemoteRun:
    """The run at an address, and its copy in `folder`.

        remote = RemoteRun("s3://bucket/runs/vit")
        with remote.held():
            remote.send_rest()
            remote.fetch()
        open_run(remote.folder)

    All but `folder` is for the time of a `held` block: one process at a time changes a copy.
    """

    def __init__(self, address: str) -> None:
        self.address = address if address.endswith("://") else address.rstrip("/")
        self.storage = Storage(self.address)
        self.home = folder_for(self.address)
        self.folder = self.home / self.storage.name
        self.record = Record()
        stands_for(str(self.folder), self.address)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The block of one process at a time, and what is known."""
        with writing(self.folder):
            bring_back(self.folder)
            with locked(self.home):
                settle(self.folder)
                self.record = read_record(self.home)
                yield

    def fetch(self, anew: bool = False) -> None:
        """Makes the copy equal to what is at the address, damaged files included; anew: whatever is
        known of it.

        Raises UsageError where there is no run, ProbeError where it cannot be read.
        """
        for _ in range(TRIES):
            data = self.storage.manifest()
            if data is None:
                raise self._no_run()
            self._fetch(data, anew)
            if not self.record.damaged or self.storage.manifest() == data:
                return  # else a job is writing there right now

    def fetch_manifest(self) -> None:
        """A copy of the manifest alone, or of nothing where there is no run: enough for a job that
        makes another one.
        """
        data = self.storage.manifest()
        if (data and _digest(data)) == self._digest_here():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if data is not None:
            self.folder.mkdir()
            write_file(self.folder / MANIFEST, data)
        self._agree(data)

    def rest(self) -> bool:
        """Does the copy hold a manifest that never arrived?"""
        return self._digest_here() not in (None, self.record.base)

    def send_rest(self) -> bool:
        """Sends what an upload that failed has left. Returns whether there was something."""
        left = self.rest()
        if left:
            self.send()
            warnings.warn(f"{self.address}: the upload of an earlier job is complete", stacklevel=2)
        return left

    def take_over(self) -> None:
        """What is at the address now may be replaced by what is in the copy."""
        self._agree(self.storage.manifest())

    def send(self) -> None:
        """Sends what differs, the manifest last. Raises ProbeError where that fails, or where
        another job changed the run there; the copy stays as it is.
        """
        data = read_inside(self.folder, MANIFEST)
        try:
            self._send(data, self.storage.manifest())
        except StorageError as error:
            raise ProbeError(
                f"{self.address}: the upload failed ({error.reason}): {self._kept()}"
            ) from error
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(self._kept())
            raise
        finally:
            write_record(self.home, self.record)

    def _fetch(self, data: bytes, anew: bool) -> None:
        entries = listed(checked_manifest(data, self.folder))
        known = not anew and _digest(data) == self.record.base
        others = [] if known else [name for name in self.storage.sizes() if name not in entries]
        before = self._entries_here()
        wanted = [
            name
            for name, entry in entries.items()
            if anew or not self._has(name, entry, before.get(name))
        ]
        names = [name for name in (*wanted, *others) if _is_file_of_run(name)]
        if known and not names:
            return
        damaged = {}  # name -> is anything there?
        with Step(self.folder) as step:
            for name, content in self.storage.read(names):
                if content is not None:
                    step.put(self.folder / name, content)
                if not _is(content, entries.get(name)):
                    damaged[name] = content is not None
            step.put(self.folder / MANIFEST, data)
        for name in self._files_here():
            if not damaged.get(name, known or name in entries or name in others):
                (self.folder / name).unlink()
        self._agree(data, [name for name in damaged if name in entries])

    def _send(self, data: bytes, there: bytes | None) -> None:
        entries, entries_there = self._entries(data), self._entries(there)
        self._refuse_change(entries, entries_there, data, there)
        sizes = self.storage.sizes() if there is not None or self.record.sent else {}
        at_address = {name: entry["sha256"] for name, entry in entries_there.items()}
        files = self._unsent(entries, at_address | self.record.sent, sizes)
        for name in self.storage.send({name: self.folder / name for name in files}):
            self.record.sent[name] = files[name]
        self.storage.put(MANIFEST, data)
        self._agree(data, [name for name in self.record.damaged if name not in files])
        self._remove([name for name in sizes if name not in entries])

    def _unsent(
        self, entries: Entries, there: Mapping[str, str], sizes: Mapping[str, int]
    ) -> dict[str, str]:
        """Name of each file that is not at the address as it is here -> its checksum."""
        files = {}
        for name in self._files_here():
            path = self.folder / name
            entry = entries.get(name) or entry_of(path.read_bytes())
            if name in self.record.damaged:
                with suppress(Unsound):
                    check_content(self.folder, name, entry)
                    files[name] = entry["sha256"]
            elif there.get(name) != entry["sha256"] or sizes.get(name) != path.stat().st_size:
                files[name] = entry["sha256"]
        return files

    def _refuse_change(
        self, entries: Entries, entries_there: Entries, data: bytes, there: bytes | None
    ) -> None:
        """Raises ProbeError where the run at the address is not the one that the job began with."""
        if there is None or _digest(there) in (self.record.base, _digest(data)):
            return
        if capture_checksum(entries) == capture_checksum(entries_there):
            self.record.base = _digest(data)  # the next one to open it takes over what is there
            raise ProbeError(
                f"{self.address} was changed by another job meanwhile: nothing was sent; do it "
                "again"
            )
        raise ProbeError(
            f"{self.address} holds another run than when this job began: nothing was sent; what "
            f"was computed is kept in {self.home}: move that folder, then do it again, or give "
            "another address"
        )

    def _remove(self, names: Sequence[str]) -> None:
        """What was left of a run that was replaced."""
        here = set(self._files_here())
        others = [name for name in names if _is_file_of_run(name) and name not in here]
        try:
            self.storage.remove(others)
        except StorageError as error:
            warnings.warn(
                f"{self.address}: files of the run that was replaced could not be removed "
                f"({error.reason})",
                stacklevel=2,
            )

    def _has(self, name: str, entry: Mapping[str, Any], before: Mapping[str, Any] | None) -> bool:
        """Does the copy hold this file already?"""
        if name in self.record.damaged or before is None or before["sha256"] != entry["sha256"]:
            return False
        path = self.folder / name
        return path.is_file() and path.stat().st_size == entry["bytes"]

    def _files_here(self) -> list[str]:
        return [name for name in present(self.folder) if _is_file_of_run(name)]

    def _entries_here(self) -> Entries:
        try:
            return self._entries(read_inside(self.folder, MANIFEST))
        except Unsound:
            return {}

    def _entries(self, manifest: bytes | None) -> Entries:
        """None of a manifest that is damaged, or that is none."""
        try:
            return {} if manifest is None else listed(checked_manifest(manifest, self.folder))
        except ProbeError:
            return {}

    def _digest_here(self) -> str | None:
        try:
            return _digest(read_inside(self.folder, MANIFEST))
        except Unsound:
            return None

    def _agree(self, manifest: bytes | None, damaged: Sequence[str] = ()) -> None:
        """The address and the copy have this manifest both."""
        base = None if manifest is None else _digest(manifest)
        self.record = Record(base, damaged=list(damaged))
        write_record(self.home, self.record)

    def _no_run(self) -> UsageError:
        if not self.storage.names():
            return UsageError(
                f"{self.address} does not exist; give the address of a run (--out of a capture)"
            )
        return UsageError(f"{self.address} is no run: it holds no {MANIFEST}")

    def _kept(self) -> str:
        return (
            f"what was computed is kept in {self.home}, and the same command goes on with the "
            "upload (--resume in place of --overwrite)"
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is(content: bytes | None, entry: Mapping[str, Any] | None) -> bool:
    """Is this the content that the manifest says? Of a file that is not in it nothing is said."""
    if content is None or entry is None:
        return content is not None
    return entry_of(content) == {name: entry[name] for name in ("bytes", "sha256")}


def _is_file_of_run(name: str) -> bool:
    """Is this the name of a file that a run may have, the manifest aside? No other is fetched: a
    stranger's run makes no files elsewhere.
    """
    return is_inside(name) and name.count("/") < 2 and belongs(name)


__all__ = ["RemoteRun"]

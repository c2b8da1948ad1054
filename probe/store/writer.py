"""Writes a run so that it appears complete or not at all: into a hidden sibling folder, the
manifest last, then one rename.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from probe.store.disk import FULL, durable, sync_folder, write_error, write_file, writing
from probe.store.encode import Data, write_samples, write_table
from probe.store.files import EntryWriter
from probe.store.manifest import sealed
from probe.store.outputs import output_run
from probe.store.remote import upload
from probe.store.schema import (
    ATTENTION,
    CAPTURED,
    FORMAT,
    IMAGES,
    MANIFEST,
    SAMPLES,
    VERSION,
    sample_name,
)
from probe.store.staging import clean, sibling


class RunWriter:
    """Writes one run.

        with RunWriter("runs/vit_b") as writer:
            writer.write_samples(0, "blocks.0.norm1", uniform=rows, tail=elements)
            writer.write_table("moments", moments)
            path = writer.finish({"model": {"name": "vit_b"}, "layers": [...]})

    Leaving it before `finish`, by an exception or not, leaves nothing behind.
    Entering raises UsageError where `out` is taken (with overwrite: by anything but a run) and
    ProbeError where it cannot be written; the methods raise ProbeError when the disk is full. All
    but `finish` may be called from several threads.

    metadata: texts that every table and all samples written from then on carry in their files,
    such as a warning that their numbers come from random weights.
    """

    def __init__(self, out: str | os.PathLike[str], overwrite: bool = False) -> None:
        self.out = Path(out)
        self.overwrite = overwrite
        self.metadata: dict[str, str] = {}
        self._files: dict[str, dict[str, Any]] = {}
        self._claimed: set[str] = set()
        self._lock = threading.Lock()
        self._temporary: Path | None = None

    def __enter__(self) -> RunWriter:
        target = output_run(self.out, self.overwrite)
        temporary = sibling(target, "unfinished")
        with writing(self.out):
            target.parent.mkdir(parents=True, exist_ok=True)
            clean(target)
            output_run(self.out, self.overwrite)  # cleaning may have put an old run back
            temporary.mkdir()
            self._target, self._temporary = target, temporary
            (temporary / SAMPLES).mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
        if isinstance(error, OSError) and error.errno in FULL:
            raise write_error(error, self.out) from error

    def write_samples(
        self,
        depth: int,
        layer: str,
        *,
        uniform: Mapping[str, Any],
        prefix: Mapping[str, Any] | None = None,
        tail: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the samples of one layer.

        uniform, prefix: `image` (N,), `position` (N,), `input`, `normalized`, `output` (N, C), in
        any order of rows.
        tail: `image`, `position`, `channel`, `input`, `normalized`, `output`, each (T,).
        Raises ValueError for other shapes and for a second layer of the same depth.
        """
        self._claim(f"the samples of depth {depth}")
        samples = (layer, uniform, prefix, tail, self.metadata)
        name = f"{SAMPLES}/{sample_name(depth, layer)}"
        self._add(name, lambda file: write_samples(file, *samples))

    def write_table(self, name: str, data: Data | Iterator[pa.Table]) -> None:
        """Writes `moments`, `profile`, `rows`, `attention` or `images`: a data frame, an arrow
        table, a mapping of columns, or an iterator over tables that follow each other.

        Raises ValueError for an unknown name, for missing columns and for values that do not fit
        their type.
        """
        if name not in (tables := (*CAPTURED, ATTENTION, IMAGES)):
            raise ValueError(f"a capture writes {', '.join(tables)}, not {name!r}")
        self._claim(name)
        self._add(f"{name}.parquet", lambda file: write_table(file, name, data, self.metadata))

    def finish(self, manifest: Mapping[str, Any]) -> Path:
        """Completes the run and gives it its name. Returns its absolute path.

        manifest: what the caller knows (`layers` is a list of records with the columns of
        schema.LAYERS); format, version, status and files are added here. NaN becomes null.
        """
        temporary = self._open()
        # first in the file, and not the caller's to change
        head = {"format": FORMAT, "version": VERSION, "status": "finished"}
        files = {name: self._files[name] for name in sorted(self._files)}
        with writing(self.out):
            sync_folder(temporary / SAMPLES)
            write_file(temporary / MANIFEST, sealed({**head, **manifest, **head, "files": files}))
            sync_folder(temporary)
            output_run(self.out, self.overwrite)  # somebody else may have been faster
            swap(temporary, self._target)
            sync_folder(self._target.parent)
        self._temporary = None
        upload(self._target)
        return self._target

    def _open(self) -> Path:
        if self._temporary is None:
            raise RuntimeError(
                "this run is closed: write inside `with RunWriter(...)`, before finish"
            )
        return self._temporary

    def _add(self, name: str, write: Callable[[Any], int]) -> None:
        """write: fills the file and returns its number of rows."""
        with writing(self.out), durable(self._open() / name) as file:
            counted = EntryWriter(file)
            rows = write(counted)
        self._files[name] = {"rows": rows, **counted.entry}

    def _claim(self, what: str) -> None:
        """Two threads must not write the same file."""
        with self._lock:
            if what in self._claimed:
                raise ValueError(f"{what} were written before")
            self._claimed.add(what)


def swap(new: Path, target: Path) -> None:
    """Gives `new` the name `target`. An old run there stays until the new one has its name."""
    if not target.exists():
        new.rename(target)
    elif not (target / MANIFEST).exists():  # an empty folder
        for rest in target.iterdir():  # .DS_Store
            rest.unlink()
        target.rmdir()
        new.rename(target)
    else:
        old = sibling(target, "replaced")
        target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            if not target.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)

"""A run that several jobs make together, and that appears when the last of them has ended."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from probe.errors import ProbeError
from probe.store.disk import ELSEWHERE, sync_folder, write_file, writing
from probe.store.files import Unsound, read_inside
from probe.store.listing import listed
from probe.store.manifest import sealed
from probe.store.outputs import output_copy, output_run
from probe.store.remote import upload
from probe.store.run import Run
from probe.store.schema import MANIFEST
from probe.store.staging import clean, sibling
from probe.store.writer import swap


@contextmanager
def whole_run(
    out: str | os.PathLike[str], overwrite: bool = False, instead: str = ELSEWHERE
) -> Iterator[Path]:
    """A place for a run that has the name `out` after the block; an old run there stays until then,
    and stays altogether after an error.

        with whole_run("runs/vit", overwrite=True) as place:
            fit(capture(model, out=place))

    The folder in which the place lies is hidden, and its name is that of `out`. Raises UsageError
    where `out` is taken, ProbeError where it cannot be written.
    """
    out, _ = output_copy(out, overwrite)
    target = output_run(out, overwrite)
    hidden = sibling(target, "unfinished")
    with writing(out, instead):
        target.parent.mkdir(parents=True, exist_ok=True)
        clean(target)
        output_run(out, overwrite)  # cleaning may have put an old run back
        hidden.mkdir()
    place = hidden / target.name
    try:
        with named(place, out):
            yield place
        take_place(place, out, overwrite)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def take_place(place: Path, out: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Gives the run at `place` the name `out`. Raises UsageError where that is taken, ProbeError
    where the disk refuses.
    """
    with writing(out):
        target = output_run(out, overwrite)  # somebody else may have been faster
        swap(place, target)
        sync_folder(target.parent)
    upload(target)


@contextmanager
def named(place: Path, out: str | os.PathLike[str]) -> Iterator[None]:
    """Errors name the run as the user did."""
    try:
        yield
    except ProbeError as error:
        renamed = type(error)(str(error).replace(str(place), str(out)))
        for note in getattr(error, "__notes__", ()):
            renamed.add_note(note)
        raise renamed from error


def copy_captured(run: Run, place: Path) -> None:
    """What was captured, compared with its checksums on the way, without what later jobs made.
    Raises ProbeError.
    """
    entries = {name: entry for name, entry in listed(run.manifest).items() if "from" not in entry}
    with writing(place):
        for name, entry in entries.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                write_file(place / name, read_inside(run.path, name, entry))
            except Unsound as reason:
                raise ProbeError(
                    f"run {run.path} is damaged: {name}: {reason}; capture the run again"
                ) from None
        write_file(place / MANIFEST, sealed({**run.manifest, "files": dict(entries)}))
        sync_folder(place)

"""What an interrupted job left at the place of its run, and whether this one is the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from probe.errors import ProbeError, UsageError, shown
from probe.formatting import json_bytes
from probe.jobs.capturing.keeper import images_done
from probe.jobs.inputs import Stream
from probe.models.loading.load import Model
from probe.paths import is_address, user_path
from probe.store import Run, RunWriter, open_run
from probe.store.checkpoint import Checkpoint, Saved
from probe.store.outputs import is_run, output_copy, output_run
from probe.store.remote import copy_of
from probe.store.replacement import named
from probe.store.schema import MANIFEST

GO_ON, ANEW = "--resume (resume=True) goes on", "--overwrite (overwrite=True) starts anew"

# What must be the same, by what it is called; of a finished run too.
_SAME = {
    "model": "model.name",
    "fingerprint of the weights": "model.fingerprint",
    "dtype": "model.dtype",
    "autocast": "model.autocast",
    "train mode": "model.training",
    "prefix tokens": "model.prefix_tokens",
    "transform": "model.transform",
    "number of images": "plan.images",
    "list of images (SHA-256 of names and sizes)": "data.identity",
    "seed": "plan.seed",
    "samples": "plan.samples",
    "tail": "plan.tail",
    "batch size": "plan.batch_size",
    "layers": "plan.layers",
    "engine": "plan.engine",
    "attention": "attention.given",
    "registered norms": "registered_norms",
}
# What decides about bits beside that, while a capture is not finished.
_SAME_BITS = {
    "device": "model.device",
    "Python file of the model": "given.file",
    "transform=": "given.transform",
    "mask=": "given.mask",
} | {
    package: f"versions.{package}" for package in ("torch", "torchvision", "timm", "numpy", "numba")
}


@dataclass(frozen=True)
class Begun(os.PathLike[str]):
    """A job that has begun: the place of its run, and what an interrupted one left there.

    saved: the state of an interrupted capture, to go on from. finished: the run of a capture that
    is complete, so that the job goes on after it. overwrite: may an old run be replaced?
    A path: that of the run, as the user gave it.
    """

    checkpoint: Checkpoint
    overwrite: bool
    saved: Saved | None = None
    finished: Run | None = None
    found: str = ""  # what is said of the interrupted job, where nobody asked to go on

    def __fspath__(self) -> str:
        return os.fspath(self.checkpoint.out)

    @property
    def replaces(self) -> bool:
        """Is there a run that this one will replace?"""
        return self.overwrite and is_run(self.checkpoint.run)

    def finish(self, out: str | os.PathLike[str], job: Mapping[str, Any] | None = None) -> Run:
        """The run that was captured. A job with parts after that, which handed itself on as `out`,
        goes on with `job` until it publishes the run; None: nothing shows which job it is.
        """
        checkpoint = self.checkpoint
        if out is not self:
            if checkpoint.aside or self.finished is None:
                checkpoint.publish()
            return open_run(out)
        if self.finished is None and job is None:
            checkpoint.forget()
        elif self.finished is None and job is not None:
            with suppress(ProbeError):  # the disk is full: the job may still have room
                checkpoint.captured({"job": job})
        return open_run(checkpoint.place if checkpoint.aside else checkpoint.out)

    def say(self) -> None:
        """Warns that the job goes on where another one was interrupted."""
        if self.found:
            _say(f"{self.found} goes on; {ANEW}")

    def writer(self) -> RunWriter:
        """Of the run, where it is made."""
        checkpoint = self.checkpoint
        place = checkpoint.place if checkpoint.aside else checkpoint.out
        return RunWriter(place, self.overwrite or checkpoint.aside)


@contextmanager
def begun(
    out: str | os.PathLike[str], resume: bool, overwrite: bool, whole: bool = False
) -> Iterator[Begun]:
    """Takes the place of a run for one job, and looks at what is there. A job that has begun is
    handed on, so that a part of it may be given it as `out`.

    resume: go on with what is there; overwrite: do not. Without either the same job goes on where
    it was interrupted, which a warning says.
    whole: the job has parts after the capture.
    Raises UsageError where another job works there, where an interrupted one would have replaced a
    run and nobody says that this one may, and for both wishes at once.
    """
    if isinstance(out, Begun):
        yield out
        return
    if resume and overwrite:
        raise UsageError(f"{GO_ON} with what is there, {ANEW}: give one of them")
    if is_address(out):
        whole_copy = resume or Checkpoint(copy_of(str(out))).exists()
        out, sent = output_copy(out, overwrite, whole_copy)
        resume = resume or sent
    if resume and not whole and (run := _finished_alone(Checkpoint(out))) is not None:
        yield Begun(Checkpoint(out), False, finished=run)  # which may be on a disk for reading only
        return
    with Checkpoint(out) as checkpoint:
        job = _begun(checkpoint, resume, overwrite, whole)
        checkpoint.aside |= whole and job.finished is None and job.replaces
        if not checkpoint.aside:
            yield job
            return
        output_run(out, overwrite=True)
        with named(checkpoint.place, out):
            yield job


def _finished_alone(checkpoint: Checkpoint) -> Run | None:
    """The run that is there, where no job was interrupted."""
    if checkpoint.exists() or not (checkpoint.run / MANIFEST).exists():
        return None
    return open_run(checkpoint.out)


def _begun(checkpoint: Checkpoint, resume: bool, overwrite: bool, whole: bool) -> Begun:
    if overwrite:  # a state stays until the new capture has one of its own
        if checkpoint.exists():
            _say(f"{checkpoint.out}: an interrupted job is here: {ANEW}, {GO_ON}")
        return Begun(checkpoint, True)
    saved = checkpoint.read()
    if saved is None:
        finished = _finished_alone(checkpoint) if resume else None
        return Begun(checkpoint, False, finished=finished)
    over = bool(saved.facts["job"]["overwrite"])
    found = f"{checkpoint.out}: an interrupted {_what(saved)}"
    if "captured" in saved.facts:
        if not (resume or whole or over):
            return Begun(checkpoint, False)  # the capture is complete: the run is in the way
        saved, finished = None, open_run(checkpoint.place)
    else:
        finished = None
    if over and not resume:
        raise UsageError(f"{found} would replace this run: {GO_ON}, {ANEW}")
    return Begun(checkpoint, over, saved, finished, "" if resume else found)


def _what(saved: Saved) -> str:
    """`capture is here, 37 of 128 images are done, and`."""
    if "captured" in saved.facts:
        return "job is here, whose capture is complete, and"
    done = images_done(saved.facts["images"], saved.facts["job"]["plan"]["images"])
    return f"capture is here, {done}, and"


def _say(line: str) -> None:
    warnings.warn(shown(line), stacklevel=4)


def refuse_interrupted(checkpoint: Checkpoint, overwrite: bool) -> None:
    """Raises UsageError where an interrupted job is that may not be lost, for a job that cannot go
    on with it.
    """
    if not overwrite and (saved := checkpoint.read()) is not None and "captured" not in saved.facts:
        what = _what(saved).removesuffix(", and")
        raise UsageError(f"{checkpoint.out}: an interrupted {what}: {ANEW}; or give another folder")


def check_names(stream: Stream) -> None:
    """Raises UsageError for data of which nothing shows that it is the same as before."""
    if stream.description.get("identity") is None:
        kind = stream.description["kind"]
        what = "a stream of images" if kind == "stream" else "an iterable of batches"
        raise UsageError(
            f"--resume (resume=True): the data is {what} ({stream.description['location']}), whose "
            "images have no names, so nothing shows which of them were done; start anew, or give "
            "files"
        )


def with_given(
    job: dict[str, Any],
    model: Model,
    mask: Callable[..., Any] | None,
    transform: Callable[..., Any] | None,
) -> dict[str, Any]:
    """The job with what a user gave: functions by name, the Python file of a model by checksum."""
    code = {"file": _checksum(model), "mask": _named(mask), "transform": _named(transform)}
    return job | {"given": code}


def check_same(place: Any, before: Mapping[str, Any], now: Mapping[str, Any], bits: bool) -> None:
    """Raises UsageError with the first differences between the job that was begun and this one;
    bits: that it is another one also where the bits of the results would differ.
    """
    now = json.loads(json_bytes(now))
    compared = _SAME | (_SAME_BITS if bits else {})
    differences = [
        f"{what} {_short(was)}, not {_short(value)}"
        for what, path in compared.items()
        if (was := _at(before, path)) != (value := _at(now, path))
    ]
    if differences:
        raise UsageError(
            f"{place} was captured with {'; '.join(differences[:3])}: give the same "
            "model, data and options again, or another folder; " + ANEW
        )


def _at(record: Any, path: str) -> Any:
    for name in path.split("."):
        record = record.get(name) if isinstance(record, Mapping) else None
    if path == "model.device" and isinstance(record, str):
        return record.split(":")[0]
    return _without_address(record) if isinstance(record, str) else record


def _checksum(model: Model) -> str | None:
    """Of the file that makes the network; what it imports may change unseen."""
    if model.origin != "file":
        return None
    data = user_path(model.name.rpartition(":")[0]).read_bytes()
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _named(function: Any) -> str | None:
    if function is None:
        return None
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if name else _without_address(repr(function))


def _without_address(text: str) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def _short(value: Any) -> str:
    text = " ".join(str("none" if value is None else value).split())
    text = re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]+", r"\1...", text)
    return text if len(text) <= 100 else f"{text[:97]}..."


__all__ = [
    "Begun",
    "begun",
    "check_names",
    "check_same",
    "refuse_interrupted",
    "with_given",
]

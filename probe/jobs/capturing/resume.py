"""Which job an interrupted or a finished capture was, and whether the one asked for is the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from probe.errors import UsageError
from probe.formatting import json_bytes
from probe.jobs.capturing.keeper import images_done
from probe.jobs.inputs import Stream
from probe.store import Run, open_run
from probe.store.checkpoint import Checkpoint, Saved
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
    "transform=": "given.transform",
    "mask=": "given.mask",
} | {
    package: f"versions.{package}" for package in ("torch", "torchvision", "timm", "numpy", "numba")
}


def check_both(resume: bool, overwrite: bool) -> None:
    """Raises UsageError for two wishes that exclude each other."""
    if resume and overwrite:
        raise UsageError(f"{GO_ON} with what is there, {ANEW}: give one of them")


def finished_run(checkpoint: Checkpoint) -> Run | None:
    """The run that a job may go on with after its capture: no state is there, but a run."""
    if checkpoint.exists() or not (checkpoint.run / MANIFEST).exists():
        return None
    return open_run(checkpoint.out)


def interrupted(checkpoint: Checkpoint, resume: bool, overwrite: bool) -> Saved | None:
    """The state to go on from. Raises UsageError where there is one and the user has not said what
    to do with it.
    """
    if overwrite:  # it stays until the new capture has a state of its own
        return None
    saved = checkpoint.read()
    if saved is not None and not resume:
        done = images_done(saved.facts["images"], saved.facts["job"]["plan"]["images"])
        raise UsageError(
            f"{checkpoint.out}: an interrupted capture is here, {done}: {GO_ON}, {ANEW}"
        )
    return saved


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
    job: dict[str, Any], mask: Callable[..., Any] | None, transform: Callable[..., Any] | None
) -> dict[str, Any]:
    """The job with the functions that a user gave, by name."""
    return job | {"given": {"mask": _named(mask), "transform": _named(transform)}}


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
            f"--resume: {place} was captured with {'; '.join(differences[:3])}: give the same "
            "model, data and options again, or another folder; " + ANEW
        )


def _at(record: Any, path: str) -> Any:
    for name in path.split("."):
        record = record.get(name) if isinstance(record, Mapping) else None
    if path == "model.device" and isinstance(record, str):
        return record.split(":")[0]
    return _without_address(record) if isinstance(record, str) else record


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


__all__ = ["check_both", "check_names", "check_same", "finished_run", "interrupted", "with_given"]

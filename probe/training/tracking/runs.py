"""The run of one checkpoint: captured and fitted, or found finished and of the same kind."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from probe.data import ImageSource, is_stream_name, open_images
from probe.errors import ProbeError, UsageError
from probe.jobs.capturing.capture import capture
from probe.jobs.fitting.fit import fit, fitted_families
from probe.jobs.inputs import describe, is_images, open_model
from probe.models.loading.load import Model
from probe.records import Progress
from probe.store import Run, open_run
from probe.store.disk import writing
from probe.store.outputs import is_run
from probe.store.replacement import whole_run
from probe.store.schema import CONTENTS

FAMILIES = ("linear", "tanh")  # what the table of a tracking is made of


@dataclass(frozen=True)
class Capturing:
    """What is kept of each checkpoint; the same for all of them. Fields as in `probe.capture`."""

    layers: str = "*"
    attention: bool = False
    num_images: int | None = None
    samples: int = 512
    tail: int = 1000
    seed: int = 0
    autocast: str | None = None
    batch_size: int = 8
    workers: int = 0
    engine: str = "local"
    address: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the numbers; not how the work is cut up."""
        given = asdict(self)
        cutting = ("batch_size", "workers", "engine", "address")
        return {name: given[name] for name in given if name not in cutting}


def probe_checkpoint(
    model: Model | nn.Module,
    data: Any,
    out: str | os.PathLike[str],
    *,
    families: Sequence[str] = FAMILIES,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Run:
    """Capture and fit a network as it is now, in evaluation mode, into the run `out`, which appears
    when it is complete.

        probe_checkpoint(model, "photos/", "runs/mine/probes/epoch_003", num_images=64)

    options: fields of Capturing, and `transform` for a plain module. The network has afterwards the
    modes and buffers that it had, and random numbers go on as if nothing had happened: a training
    that is probed is the training that is not.
    """
    with _evaluating(model), whole_run(out, overwrite) as place:
        capture(model, data, out=place, progress=progress, **options)
        fit(open_run(place), families, progress=progress)
    return open_run(out)


@contextmanager
def _evaluating(model: Model | nn.Module) -> Iterator[None]:
    """Evaluation mode, and the state of all random numbers, for the time of the block."""
    module = model.module if isinstance(model, Model) else open_model(model).module
    modes = [(child, child.training) for child in module.modules()]
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - a training may use it
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    module.eval()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        for child, training in modes:
            child.training = training


def same_images(data: Any, capturing: Capturing) -> Any:
    """The data of all checkpoints: images of files are chosen once. Raises UsageError for what can
    be read only once.
    """
    if not isinstance(data, ImageSource) and not is_stream_name(data) and is_images(data):
        return open_images(data, capturing.num_images, capturing.seed)
    if isinstance(data, Iterator):
        raise UsageError(
            f"data is a {type(data).__name__}, which can be read once; every checkpoint needs the "
            "same images: give a list of batches, or a loader that starts anew without shuffling"
        )
    return data


def finished_run(
    place: Path, model: Model, data: Any, capturing: Capturing, families: Sequence[str]
) -> Run | None:
    """The run at `place`, where it is finished, undamaged, of these weights, images and settings.

    Batches of tensors have no names, so that runs of them are made anew.
    """
    if not is_run(place):
        return None
    try:
        run = open_run(place)
        whole = _is_of(run.manifest, model, data, capturing) and set(families) <= fitted_families(
            run
        )
        if whole:
            run.alphas(), run.moments()  # compared with their checksums
        return run if whole else None
    except ProbeError:
        return None


def _is_of(manifest: dict[str, Any], model: Model, data: Any, capturing: Capturing) -> bool:
    if not isinstance(data, ImageSource):
        return False
    seen, plan = manifest.get("model") or {}, manifest.get("plan") or {}
    images, here = manifest.get("data") or {}, describe(model)
    told = ("fingerprint", "dtype", "training")
    planned = ("layers", "samples", "tail", "seed")
    attention = (manifest.get("attention") or {}).get("status") != "off"
    return (
        all(seen.get(name) == here[name] for name in told)
        and _named(seen.get("transform")) == _named(here["transform"])
        and seen.get("autocast") == capturing.autocast
        and all(plan.get(name) == getattr(capturing, name) for name in planned)
        and images.get("identity") == data.description.get("identity")
        and images.get("images") in (list(data.ids), len(data.ids))
        and attention == capturing.attention
    )


def _named(transform: Any) -> str:
    """A transform as text, the same in every process: a function shows where it lies in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(transform))


def clear_damaged(place: Path) -> None:
    """Removes what is left of a run whose manifest is damaged, and of nothing else."""
    if place.is_dir() and not is_run(place) and {each.name for each in place.iterdir()} <= CONTENTS:
        with writing(place):
            shutil.rmtree(place)


__all__ = [
    "FAMILIES",
    "Capturing",
    "clear_damaged",
    "finished_run",
    "probe_checkpoint",
    "same_images",
]

"""The images on which a changed model is compared with the original: every comparison sees the same
batches.

Where this process runs the model they are read once and kept, 0.6 MB of memory per 224-pixel image;
workers in other processes read theirs anew for each pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from probe.data import ImageSource, cut_batches, labels_of, open_images
from probe.errors import ProbeError, UsageError
from probe.jobs.inputs import Inputs, Stream, is_images, open_stream
from probe.models.loading.load import Model
from probe.paths import user_path
from probe.records import Progress
from probe.store import Run

Transform = Callable[[Any], Tensor]


@dataclass(frozen=True)
class EvalData:
    """Batches of a stream: a list that is kept, or not read yet. labels (N,): by image index, None
    without labels; classes: how many there are, None: not told.
    """

    stream: Stream
    labels: NDArray[np.int64] | None
    classes: int | None
    description: str  # what the images are, for people

    def __len__(self) -> int:
        """How many batches."""
        if isinstance(self.stream.batches, list):
            return len(self.stream.batches)
        assert self.stream.images is not None
        assert self.stream.making is not None
        return len(cut_batches(self.stream.images, self.stream.making.batch_size))


def read_eval_data(
    model: Model,
    data: Any,
    run: Run | None,
    *,
    num_images: int | None,
    batch_size: int,
    workers: int,
    seed: int,
    transform: Transform | None,
    progress: Progress,
    labelled: bool = True,
    kept: bool = True,
) -> EvalData:
    """The batches of `data`; None: the images of the run, or the bundled photographs where those
    cannot be opened again. labelled: False reads no labels. kept: images are read here and now;
    batches that a user made are kept anyway.

    Raises UsageError for data that cannot be opened, ProbeError where no image can be used.
    """
    labels, classes, said = None, None, ""
    if data is None and run is not None:
        data, said = run_images(run, num_images)
    elif is_images(data):
        data = data if isinstance(data, ImageSource) else open_images(data, num_images, seed)
    elif isinstance(data, Iterable) and not isinstance(data, Tensor):
        data = list(data)
        labels = _labels_of_batches(data) if labelled else None
    if isinstance(data, ImageSource):
        said = said or _location(data.description)
        found = labels_of(data) if labelled else None
        labels, classes = (found.index, found.classes) if found is not None else (None, None)
    stream = open_stream(
        model,
        data,
        num_images=num_images,
        batch_size=batch_size,
        workers=workers,
        seed=seed,
        mask=None,
        transform=transform,
    )
    if kept or stream.making is None:
        stream.batches = _read(stream, progress)
    return EvalData(stream, labels, classes, said or f"batches of a {type(data).__name__}")


def no_images() -> ProbeError:
    return ProbeError("no image to compare the models on: the data gave no batch")


def _read(stream: Stream, progress: Progress) -> list[Inputs]:
    batches: list[Inputs] = []
    for batch in stream.batches:
        batches.append(batch)
        progress("images", sum(len(each) for each in batches), stream.images)
    if not batches:
        raise no_images()
    return batches


def run_images(run: Run, num_images: int | None = None) -> tuple[ImageSource, str]:
    """The images that a run was captured on, and what to say of them; the bundled photographs where
    they are gone or changed.
    """
    described = run.manifest.get("data") or {}
    try:
        source = _reopened(described, run.manifest.get("plan") or {})
        if source.description["identity"] != described.get("identity"):
            raise UsageError("they changed since")
    except (ProbeError, KeyError, TypeError, ValueError) as error:
        # of a manifest that was not written here, anything but a ProbeError
        why = str(error).split(";")[0] if isinstance(error, ProbeError) else "not said where"
        return open_images(
            None, num_images
        ), f"bundled photographs (the run's own images cannot be used: {why})"
    if num_images is not None and num_images < len(source):
        source = _reopened(
            described,
            {"seed": (run.manifest.get("plan") or {}).get("seed", 0), "images": num_images},
        )
    return source, f"{_location(described)}, the images that the curves were fitted on"


def _reopened(described: dict[str, Any], plan: dict[str, Any]) -> ImageSource:
    """The same draw of images from the same place. Raises UsageError where the manifest does not
    name images.
    """
    kind, seed = described.get("kind"), int(plan.get("seed") or 0)
    chosen = min(
        int(plan.get("images") or described.get("chosen") or 1), int(described.get("chosen") or 1)
    )
    if kind == "bundled":
        return open_images(None, chosen, seed)
    if kind in ("folder", "list", "file"):
        location = str(described.get("location"))
        if not os.path.lexists(user_path(location)):
            # it could name a data set as well, which this run was not captured on
            raise UsageError("they are not where they were")
        return open_images(location, chosen, seed)
    if kind == "paths":
        return open_images(list(described.get("images") or [])[:chosen])
    if kind in ("dataset", "store"):
        # it may be on the hub, under a name that a stranger chose
        raise UsageError("they are a data set, which is opened where --eval names it")
    if kind == "parquet":
        if not os.path.lexists(os.path.expanduser(str(described["location"]))):
            raise UsageError("they are not where they were")
        options = {"split": "split", "input_key": "column", "target_key": "labels"}
        query = {option: described[key] for option, key in options.items() if described.get(key)}
        return open_images(f"{described['location']}?{urlencode(query)}", chosen, seed)
    if kind == "stream":
        raise UsageError("it was captured on a stream, which has passed")
    raise UsageError("it was captured on batches in memory")


def _location(described: dict[str, Any]) -> str:
    if described["kind"] == "bundled":
        return "bundled photographs"
    split = f", split {described['split']}" if described.get("split") else ""
    return str(described.get("location") or f"{described.get('chosen')} image files") + split


def _labels_of_batches(batches: list[Any]) -> NDArray[np.int64] | None:
    """The second item of every batch (input, target), where all of them are one whole number per
    image.
    """
    targets = []
    for batch in batches:
        target = batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None
        if (
            not isinstance(target, Tensor)
            or target.is_floating_point()
            or target.shape != (len(batch[0]),)
        ):
            return None
        targets.append(target.cpu().numpy().astype(np.int64))
    return np.concatenate(targets) if targets else None

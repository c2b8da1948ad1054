"""Parts of the training images: fewer of them, and some held back to choose settings by.

Every class keeps its share, and which images are taken is the same for every seed of a training, so
that trainings with different seeds differ in their start and order alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probe.data import ImageSource
from probe.errors import UsageError
from probe.training.images import Labelled, TrainingImages

DRAW = 0  # seed of both draws


@dataclass(frozen=True)
class Portions:
    """train_images, val_images: how many of each part are used; held_back: share of the training
    images that is not trained on, and takes the place of the validation images.
    """

    train_images: int | None = None
    val_images: int | None = None
    held_back: float | None = None

    def of(self, images: TrainingImages) -> TrainingImages:
        """Raises UsageError where a class would have no image."""
        training = _fewer(images.training, self.train_images)
        validation = _fewer(images.validation, self.val_images)
        if self.held_back is not None:
            chosen = drawn(training, round(self.held_back * len(training)))
            others = np.setdiff1d(np.arange(len(training)), chosen)
            if len(np.unique(training.labels[others])) < len(np.unique(training.labels)):
                raise UsageError(
                    f"--held-back {self.held_back:g} leaves a class without training images: give "
                    "a smaller share"
                )
            training, validation = part(training, others), part(training, chosen)
        return replace(images, training=training, validation=validation)


def _fewer(data: Labelled, count: int | None) -> Labelled:
    return data if count is None or count >= len(data) else part(data, drawn(data, count))


def drawn(data: Labelled, count: int) -> NDArray[np.int64]:
    """Sorted places of `count` images, of each class its share, rounded by largest remainders.

    Raises UsageError where a class would have none.
    """
    classes, sizes = np.unique(data.labels, return_counts=True)
    if count < len(classes):
        raise UsageError(
            f"{count} images do not show each of {len(classes)} classes: give more --train-images, "
            "more --val-images, or a larger --held-back"
        )
    shares = np.maximum(count * sizes / len(data), 1)
    counts = np.floor(shares).astype(int)
    largest = np.argsort(-(shares - counts), kind="stable")
    counts[largest[: max(0, count - counts.sum())]] += 1
    generator = np.random.default_rng(DRAW)
    places = [
        generator.permutation(np.flatnonzero(data.labels == label))[:number]
        for label, number in zip(classes, counts, strict=True)
    ]
    return np.sort(np.concatenate(places))


def part(data: Labelled, places: Sequence[int] | NDArray[np.int64]) -> Labelled:
    """The images at these places, as data of their own."""
    source = data.source.part(places)
    described = replace(source, description=data.source.description | _identity(source))
    return replace(data, source=described, labels=data.labels[np.asarray(places)])


def _identity(source: ImageSource) -> dict[str, Any]:
    """Which images they are, for the record of a training."""
    digest = hashlib.sha256(json.dumps(source.ids).encode()).hexdigest()
    return {"identity": f"sha256:{digest}", "chosen": len(source)}

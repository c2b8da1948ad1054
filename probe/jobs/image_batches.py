"""Batches on their way into a model, and how photographs become such batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probe.data import Batch, ImageSource, ImageStream, iterate, iterate_stream
from probe.errors import UsageError
from probe.models.loading.feed import Feed
from probe.models.loading.load import Model
from probe.records import GROUPS

Mask = Callable[[Any], Any]


@dataclass(frozen=True)
class Inputs:
    """One batch on its way into the model."""

    args: tuple
    kwargs: dict[str, Any]
    images: NDArray[np.int64]  # (B,) image index
    groups: NDArray[np.int64]  # (B,) jackknife group
    valid: NDArray[np.bool_] | None = None  # (B, T)

    @property
    def place(self) -> int:
        """Where the batch stands among all: the index of its first image."""
        return int(self.images[0]) if len(self.images) else -1

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class Stream:
    """Batches with what the manifest says about them; `skipped` fills up while the batches are
    read.
    """

    batches: Iterable[Inputs]
    images: int | None  # how many are planned, None if unknown
    ids: list[str]
    description: dict[str, Any]
    groups: list[int] | None = None  # jackknife group per image
    skipped: list[tuple[str, str]] = field(default_factory=list)
    # planned batches that were read, up to the one given last; set before reading, those that
    # another job worked on
    read: int = 0
    source: ImageSource | ImageStream | None = None  # of images; None: batches were given
    making: Making | None = None  # how the images of the source become batches
    limit: int | None = None  # so many images of an ImageStream are read; None: all


@dataclass(frozen=True)
class Making:
    """How images become what a model is called with, in any process."""

    transform: Callable[[Any], Tensor]
    batch_size: int
    stacked: bool
    feed: Feed
    dtype: torch.dtype
    mask: Mask | None
    groups: NDArray[np.int64] | None  # by image; None: their number modulo GROUPS

    def inputs(self, batch: Batch) -> Inputs:
        """A batch of images on its way into the model."""
        images, number = _in_dtype(batch.inputs, self.dtype), batch.indices
        group = number % GROUPS if self.groups is None else self.groups[number]
        valid = valid_positions(self.mask, images)
        return Inputs(self.feed.arguments(images), {}, number, group, valid)


def image_stream(
    model: Model,
    source: ImageSource | ImageStream,
    transform: Callable[[Any], Tensor],
    num_images: int | None,
    batch_size: int,
    workers: int,
    mask: Mask | None,
    timeout: float | None = None,
) -> Stream:
    """Batches of images as the model takes them, in the dtype of its parameters.

    Of an ImageStream the first `num_images` are read, by this process; an image's jackknife group
    is its place in the stream modulo GROUPS.
    """
    stacked = model.feed is not Feed.LIST
    if isinstance(source, ImageStream):
        groups = None
        stream = Stream(iter(()), None, [], dict(source.description))
    else:
        groups = source.groups
        described = {**source.description, "sources": len(set(source.sources))}
        stream = Stream(iter(()), len(source), list(source.ids), described, groups.tolist())
    making = Making(
        transform, batch_size, stacked, model.feed, _floating_dtype(model), mask, groups
    )
    stream.source, stream.making, stream.limit = source, making, num_images

    def read() -> Iterator[Batch]:
        if isinstance(source, ImageStream):
            return iterate_stream(source, transform, batch_size, num_images, stacked)
        return iterate(source, transform, batch_size, workers, stacked, stream.read, timeout)

    def batches() -> Iterator[Inputs]:
        for batch in read():
            stream.read += 1
            stream.skipped += batch.skipped
            if len(batch):
                yield making.inputs(batch)

    stream.batches = batches()
    return stream


def valid_positions(mask: Mask | None, batch: Any) -> NDArray[np.bool_] | None:
    """What the user's mask says of a batch, (B, T); None without one."""
    if mask is None:
        return None
    valid = torch.as_tensor(mask(batch))
    if valid.ndim != 2:
        raise UsageError(
            f"mask gave a tensor of shape {tuple(valid.shape)}; accepted: boolean (B, T), True at "
            "valid positions"
        )
    return valid.to("cpu", torch.bool).numpy()


def _floating_dtype(model: Model) -> torch.dtype:
    """Of the model's parameters."""
    kinds = (p.dtype for p in model.module.parameters() if p.is_floating_point())
    return next(kinds, torch.float32)


def _in_dtype(images: Tensor | list[Tensor], dtype: torch.dtype) -> Tensor | list[Tensor]:
    if isinstance(images, Tensor):
        return images.to(dtype)
    return [image.to(dtype) for image in images]

"""Batches on their way into a model, and how photographs become such batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probe.data import ImageSource, ImageStream, batch_of, iterate
from probe.errors import ProbeError, UsageError
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

    batches: Iterator[Inputs]
    images: int | None  # how many are planned, None if unknown
    ids: list[str]
    description: dict[str, Any]
    groups: list[int] | None = None  # jackknife group per image
    skipped: list[tuple[str, str]] = field(default_factory=list)


def image_stream(
    model: Model,
    source: ImageSource,
    transform: Callable[[Any], Tensor],
    batch_size: int,
    workers: int,
    mask: Mask | None,
) -> Stream:
    """Batches of image files, in the parameters' dtype, as the model takes them."""
    stream = Stream(
        iter(()), len(source), list(source.ids), dict(source.description), source.groups.tolist()
    )
    floating, stacked = floating_dtype(model), model.feed is not Feed.LIST

    def batches() -> Iterator[Inputs]:
        for batch in iterate(source, transform, batch_size, workers, stacked):
            stream.skipped += batch.skipped
            if len(batch):
                inputs = in_dtype(batch.inputs, floating)
                valid = valid_positions(mask, inputs)
                groups = source.groups[batch.indices]
                yield Inputs(model.feed.arguments(inputs), {}, batch.indices, groups, valid)

    stream.batches = batches()
    return stream


def endless_stream(
    model: Model,
    images: ImageStream,
    transform: Callable[[Any], Tensor],
    num_images: int | None,
    batch_size: int,
    mask: Mask | None,
) -> Stream:
    """Batches of images as they come, the first `num_images` or all; an image's index is its place
    in the stream, its group that number modulo GROUPS.
    """
    stream = Stream(iter(()), None, [], dict(images.description))
    floating, stacked = floating_dtype(model), model.feed is not Feed.LIST

    def batches() -> Iterator[Inputs]:
        rows = ((i, f"image #{i}", read) for i, read in enumerate(islice(images, num_images)))
        used = 0
        while some := list(islice(rows, batch_size)):
            batch = batch_of(some, transform, stacked)
            stream.skipped += batch.skipped
            used += len(batch)
            if len(batch):
                inputs = in_dtype(batch.inputs, floating)
                valid = valid_positions(mask, inputs)
                groups = batch.indices % GROUPS
                yield Inputs(model.feed.arguments(inputs), {}, batch.indices, groups, valid)
        if stream.skipped and not used:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in stream.skipped[:3])
            raise ProbeError(f"no image of the stream could be used ({reasons})")

    stream.batches = batches()
    return stream


def floating_dtype(model: Model) -> torch.dtype:
    """Of the model's parameters."""
    kinds = (p.dtype for p in model.module.parameters() if p.is_floating_point())
    return next(kinds, torch.float32)


def in_dtype(images: Tensor | list[Tensor], dtype: torch.dtype) -> Tensor | list[Tensor]:
    if isinstance(images, Tensor):
        return images.to(dtype)
    return [image.to(dtype) for image in images]


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

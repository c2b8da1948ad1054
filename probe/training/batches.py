"""A process's share of each update's images: decoded, augmented, stacked, by worker processes.

Images of a set that is small enough are decoded once and kept: shuffled reading of Parquet row
groups would decode a whole group for each image.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from probe.data import BadImage
from probe.errors import ProbeError, named_first_line
from probe.records import Progress
from probe.training.augment import Transform
from probe.training.images import Labelled
from probe.training.order import Batching, Indices, parts
from probe.training.randomness import Stream, start
from probe.training.randomness import kept as numbers_kept

KEPT = 1 << 30  # bytes of decoded pixels
LARGEST_KEPT = 64 * 64 * 3  # bytes of one image: larger ones take longer to augment than to decode


@dataclass(frozen=True)
class Share:
    """What one process sees of a batch."""

    images: Tensor  # (n, C, H, W)
    labels: Tensor  # (n,)
    batch: int  # images of the batch over all processes
    # False: this process has no image in a small last batch, and works on another's
    counted: bool = True
    skipped: list[str] = field(default_factory=list)  # images that could not be read, with reasons

    def part(self, places: Indices, device: torch.device) -> tuple[Tensor, Tensor]:
        """Some of the images and labels, on a device; the images channels last in memory, as
        convolutions like them best (on the CPU in bf16: twice as fast).
        """
        index = torch.from_numpy(places)
        images = self.images[index].contiguous(memory_format=_layout(self.images))
        return (
            images.to(device, non_blocking=True),
            self.labels[index].to(device, non_blocking=True),
        )


def _layout(images: Tensor) -> torch.memory_format:
    return torch.channels_last if images.ndim == 4 else torch.contiguous_format


def kept(data: Labelled, progress: Progress) -> Labelled:
    """The same images, decoded once and held in memory, where they are small and few enough."""
    first = data.source.load(0) if len(data) else None
    pixels = 3 * first.width * first.height if first is not None else 0
    if not 0 < pixels <= LARGEST_KEPT or pixels * len(data) > KEPT:
        return data
    decoded: list[NDArray[np.uint8] | BadImage] = []
    for index in range(len(data)):
        try:
            decoded.append(np.asarray(data.source.load(index)))
        except BadImage as error:
            decoded.append(error)
        progress("read", index + 1, len(data))
    return replace(data, source=replace(data.source, read=_Decoded(decoded)))


class _Decoded:
    """Images by index, from memory."""

    def __init__(self, images: list[NDArray[np.uint8] | BadImage]) -> None:
        self._images = images

    def __call__(self, index: int) -> Image.Image:
        pixels = self._images[index]
        if isinstance(pixels, BadImage):
            raise pixels
        return Image.fromarray(pixels)


class _Shares(Dataset[Any]):
    """Item (epoch, step): the share of one process, or the error that stops the training."""

    def __init__(
        self, data: Labelled, transform: Transform, order: Batching, rank: int, of: int
    ) -> None:
        self.source, self.labels, self.transform = data.source, data.labels, transform
        self.order, self.rank, self.processes = order, rank, of

    def __getitem__(self, place: tuple[int, int]) -> Share | ProbeError:
        epoch, step = place
        batch = self.order.batch(epoch, step)
        mine = batch[parts(len(batch), self.processes)[self.rank]]
        try:
            return self._read(epoch, mine if len(mine) else batch[:1], len(batch), len(mine) > 0)
        except ProbeError as error:
            return error

    def _read(self, epoch: int, mine: Indices, batch: int, counted: bool) -> Share:
        tensors, labels, skipped = [], [], []
        with numbers_kept():
            for asked, copy in mine.tolist():
                image, index, said = self._readable(asked)
                start(self.order.seed, Stream.AUGMENT, epoch, asked, copy)
                tensors.append(self._transformed(image))
                labels.append(int(self.labels[index]))
                skipped += [said] if said else []
        return Share(torch.stack(tensors), torch.tensor(labels), batch, counted, skipped)

    def _readable(self, index: int) -> tuple[Image.Image, int, str]:
        """The image, its index, and what was wrong with the one that was asked for: a broken image
        makes way for the next one that can be read.
        """
        said = ""
        for offset in range(len(self.source)):
            place = (index + offset) % len(self.source)
            try:
                return self.source.load(place), place, said
            except BadImage as error:
                said = said or f"{self.source.ids[place]}: {error.reason}"
        raise ProbeError(f"none of the images can be read ({said})")

    def _transformed(self, image: Image.Image) -> Tensor:
        try:
            return self.transform(image)
        except Exception as error:  # augmentations of other libraries raise many types
            raise ProbeError(f"the augmentation failed: {named_first_line(error)}") from error


class Shares:
    """The shares of one process, epoch by epoch, from any update on."""

    def __init__(
        self,
        data: Labelled,
        transform: Transform,
        order: Batching,
        *,
        rank: int = 0,
        processes: int = 1,
        workers: int = 0,
    ) -> None:
        self.order = order
        self._places: list[tuple[int, int]] = []
        with warnings.catch_warnings():
            # torch warns of more workers than cores; it is the user's choice
            warnings.simplefilter("ignore")
            self._loader = DataLoader(
                _Shares(data, transform, order, rank, processes),
                batch_size=None,
                sampler=self._places,
                num_workers=workers,
                collate_fn=_as_it_is,
                persistent_workers=workers > 0,
                # an own generator: the loader would otherwise draw from the global one
                generator=torch.Generator().manual_seed(0),
            )

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Share]:
        """The shares of updates first, first + 1, ... of epoch `epoch`, both from 0."""
        self._places[:] = [(epoch, step) for step in range(first, self.order.steps)]
        try:
            for share in self._loader:
                if isinstance(share, ProbeError):
                    raise share
                yield share
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise ProbeError(
                "a loader worker process died (out of memory?); give fewer --workers: "
                f"{named_first_line(error)}"
            ) from error


def _as_it_is(share: Any) -> Any:
    return share

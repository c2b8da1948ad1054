"""Images to batches: decode, transform, stack; what is broken is left out and named.

The batches are cut from the list of indices up front and a broken image makes its batch smaller, so
the same images stand in the same batches for any number of workers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from probe.data.images import BadImage
from probe.data.source import ImageSource
from probe.errors import ProbeError, UsageError, named_first_line

Transform = Callable[[Any], Tensor]
Read = Callable[[], Any]  # gives one image; raises BadImage
Row = tuple[int, str, Read]  # index and id of an image


@dataclass(frozen=True)
class Batch:
    """Images that went through the transform; `len(batch)` is 0 where every image of the batch was
    broken.
    """

    indices: np.ndarray  # (B,) int64, image index of each row
    inputs: Tensor | list[Tensor]  # (B, 3, H, W), (0,) for an empty batch; or B tensors
    skipped: list[tuple[str, str]]  # (id, reason) of the images left out

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Cut(Sequence[np.ndarray]):
    """Image indices of every batch: consecutive runs of `batch_size`, the last one shorter. A
    function of the number of the batch: no list of them is kept.
    """

    images: int
    batch_size: int
    first: int = 0  # batch

    def __len__(self) -> int:
        return max(0, -(-self.images // self.batch_size) - self.first)

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)
        start = (self.first + number) * self.batch_size
        return np.arange(start, min(start + self.batch_size, self.images))


def cut_batches(images: int, batch_size: int, first: int = 0) -> Cut:
    """The batches from number `first` on. Raises UsageError for batches of no image."""
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; give at least 1")
    return Cut(images, batch_size, first)


def load_batch(
    source: ImageSource,
    transform: Transform,
    indices: Sequence[int] | np.ndarray,
    stacked: bool = True,
) -> Batch:
    """Decodes and transforms the images of one batch. stacked: as one tensor, else as a list.
    Raises UsageError where tensors to be stacked differ in shape.
    """
    rows = [(i, source.ids[i], partial(source.load, i)) for i in map(int, indices)]
    return read_batch(rows, transform, stacked)


def read_batch(rows: Sequence[Row], transform: Transform, stacked: bool) -> Batch:
    """Reads and transforms the images of (index, id, reading function)."""
    kept, tensors, skipped = [], [], []
    for index, name, read in rows:
        try:
            tensors.append(_one(read, transform))
            kept.append(index)
        except BadImage as error:
            skipped.append((name, error.reason))
    inputs = _stack(tensors) if stacked else tensors
    return Batch(np.array(kept, dtype=np.int64), inputs, skipped)


def iterate(
    source: ImageSource,
    transform: Transform,
    batch_size: int = 8,
    workers: int = 0,
    stacked: bool = True,
    start: int = 0,
    timeout: float | None = None,
) -> Iterator[Batch]:
    """All batches in order, decoded by `workers` processes (0: in this one); stacked: as
    `load_batch` takes it. start: the batch to begin with. timeout: seconds that a batch of a worker
    process may take; None: as long as it takes.

    Raises ProbeError at the end where no image at all could be used, or where a worker process
    died or took too long.
    """
    if workers < 0:
        raise UsageError(f"workers is {workers}; give 0 or more")
    batches = cut_batches(len(source), batch_size, start)
    results = _results(_Batches(source, transform, batches, stacked), workers, timeout or 0)
    return _checked(results, used=start)  # a job goes on after a batch that could be used


def iterate_stream(
    images: Iterable[Read],
    transform: Transform,
    batch_size: int = 8,
    num_images: int | None = None,
    stacked: bool = True,
) -> Iterator[Batch]:
    """Batches of images as they come, the first `num_images` or all; an image's index is its place
    in the stream. Raises ProbeError at the end where no image at all could be used.
    """
    cut = cut_stream(images, batch_size, num_images)
    return _checked(read_batch(batch, transform, stacked) for batch in cut)


def cut_stream(
    images: Iterable[Read], batch_size: int, num_images: int | None
) -> Iterator[list[Row]]:
    """The rows of batches of images as they come, not read yet."""
    rows = ((i, f"image #{i}", read) for i, read in enumerate(islice(images, num_images)))
    return iter(lambda: list(islice(rows, batch_size)), [])


class _Batches(Dataset[Any]):
    """One item is one batch, or the error that stops the job: an exception would cross the process
    border as a traceback.
    """

    def __init__(
        self,
        source: ImageSource,
        transform: Transform,
        batches: Cut,
        stacked: bool,
    ) -> None:
        self.source, self.transform, self.batches = source, transform, batches
        self.stacked = stacked

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, item: int) -> Batch | ProbeError:
        try:
            return load_batch(self.source, self.transform, self.batches[item], self.stacked)
        except ProbeError as error:
            return error


def _one(read: Read, transform: Transform) -> Tensor:
    image = read()
    try:
        tensor = transform(image)
    except Exception as error:  # a user's transform may raise anything
        raise BadImage(f"transform failed: {named_first_line(error)}") from error
    if not isinstance(tensor, Tensor):
        raise UsageError(
            f"the transform gives a {type(tensor).__name__}; it must give a tensor (3, H, W)"
        )
    return tensor


def _stack(tensors: list[Tensor]) -> Tensor:
    if not tensors:
        return torch.empty(0)
    shapes = {tuple(t.shape) for t in tensors}
    if len(shapes) > 1:
        raise UsageError(
            f"the transform gives tensors of different shapes ({sorted(shapes)[:3]}); resize or "
            "crop to one, or use --batch-size 1"
        )
    return torch.stack(tensors)


def _results(dataset: _Batches, workers: int, timeout: float) -> Iterator[Batch | ProbeError]:
    # an own generator: the loader would otherwise draw from the global one and disturb the caller's
    # random numbers
    generator = torch.Generator().manual_seed(0)
    come = 0  # batches that came
    try:
        with warnings.catch_warnings():
            # torch warns of more workers than cores; it is the user's choice
            warnings.simplefilter("ignore")
            loader = DataLoader(
                dataset,
                batch_size=None,
                num_workers=workers,
                timeout=timeout,
                collate_fn=_identity,
                generator=generator,
            )
            results = iter(loader)
        for result in results:
            yield result
            come += 1
    except RuntimeError as error:
        if "DataLoader timed out" in str(error):
            raise ProbeError(_too_late(dataset, come, timeout)) from error
        if (died := worker_died(error)) is None:
            raise
        raise died from error


def worker_died(error: BaseException) -> ProbeError | None:
    """The one line for a loader worker that was killed; None for any other error. torch raises its
    own wherever the main process is just then, in the midst of a batch, too.
    """
    if not isinstance(error, RuntimeError) or "DataLoader worker" not in str(error):
        return None
    return ProbeError(
        "a loader worker process died (out of memory?); give fewer --workers, or 0 to load in the "
        f"main process: {named_first_line(error)}"
    )


def _too_late(dataset: _Batches, batch: int, timeout: float) -> str:
    images = dataset.batches[batch]
    names = dataset.source.ids[images[0]], dataset.source.ids[images[-1]]
    return (
        f"the loader workers gave no batch for {timeout:g} s (--loader-timeout), waiting for "
        f"{len(images)} images, {names[0]} to {names[1]}: is a disk stuck? Give more seconds, or "
        "--workers 0"
    )


def _checked(results: Iterator[Batch | ProbeError], used: int = 0) -> Iterator[Batch]:
    """used: how many could be used before."""
    number = 0
    skipped: list[tuple[str, str]] = []
    for result in results:
        if isinstance(result, ProbeError):
            raise result
        used, number = used + len(result), number + len(result.skipped)
        skipped += result.skipped[: max(0, 3 - len(skipped))]
        yield result
    if not used:
        raise none_used(number, skipped)


def none_used(number: int, skipped: Sequence[tuple[str, str]]) -> ProbeError:
    """The one line where none of so many images could be used; the first ones with the reasons."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
    return ProbeError(f"none of the {number} images could be used ({reasons})")


def _identity(batch: Any) -> Any:
    return batch


__all__ = [
    "Batch",
    "cut_batches",
    "cut_stream",
    "iterate",
    "iterate_stream",
    "load_batch",
    "none_used",
    "read_batch",
]

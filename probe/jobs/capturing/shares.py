"""The batches of a stream, cut into shares for other processes.

Images with names travel as numbers of batches, and are read where the model runs; of a stream the
images travel as they came, not decoded; batches that a user made travel as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch

from probe.data import (
    Batch,
    ImageSource,
    ImageStream,
    cut_batches,
    cut_stream,
    load_batch,
    read_batch,
)
from probe.jobs.capturing.forward import to_device
from probe.jobs.inputs import Inputs, Stream

FEW, SMALL, MOST = 32, 64, 8192  # shares of a small plan; batches of a share; shares of any plan
STREAMED = 4  # batches of a share where nobody knows how many there are


@dataclass(frozen=True)
class Note:
    """What is told of a share that was read in another process; `len(note)` is the number of images
    that went through the model.
    """

    images: int = 0
    batches: int = 0  # planned ones
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return self.images

    def with_batch(self, batch: Batch | Inputs) -> Note:
        skipped = tuple(batch.skipped) if isinstance(batch, Batch) else ()
        return Note(self.images + len(batch), self.batches + 1, self.skipped + skipped)


class Shares(ABC):
    """What an engine deals out; `read` and `note` also work in another process."""

    def __init__(self, stream: Stream) -> None:
        self._stream: Stream | None = stream
        self._making: Any = stream.making  # None where batches were given
        self._note = Note()

    def __getstate__(self) -> dict[str, Any]:
        """What other processes need; the stream is read in this one."""
        return self.__dict__ | {"_stream": None}

    def __iter__(self) -> Iterator[Inputs]:
        assert self._stream is not None
        return iter(self._stream.batches)

    @abstractmethod
    def shares(self) -> Iterator[Any]: ...

    @abstractmethod
    def _batches(self, share: Any) -> Iterator[Batch | Inputs]: ...

    def read(self, share: Any) -> Iterator[Inputs]:
        self._note = Note()
        for batch in self._batches(share):
            self._note = self._note.with_batch(batch)
            if len(batch):
                yield batch if isinstance(batch, Inputs) else self._making.inputs(batch)

    def note(self) -> Note:
        """Of the share that was read last."""
        return self._note


class ListedShares(Shares):
    """Images with names. A share is a range of batch numbers: a function of its own number, so that
    no list of shares or batches is kept, however many there are.
    """

    def __init__(self, stream: Stream, source: ImageSource) -> None:
        super().__init__(stream)
        self._source = source
        self._cut = cut_batches(len(source), self._making.batch_size)

    def shares(self) -> Iterator[range]:
        number, size = len(self._cut), share_size(len(self._cut))
        return (range(at, min(at + size, number)) for at in range(0, number, size))

    def _batches(self, share: range) -> Iterator[Batch]:
        def load(number: int) -> Batch:
            making = self._making
            return load_batch(self._source, making.transform, self._cut[number], making.stacked)

        if not torch.cuda.is_available():  # the cores are busy with the model
            return map(load, share)
        return _ahead(load, share, torch.get_num_threads())


class StreamedShares(Shares):
    """Images as they come, read here and decoded elsewhere."""

    def __init__(self, stream: Stream, source: ImageStream) -> None:
        super().__init__(stream)
        self._source: ImageStream | None = source

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_source": None}

    def shares(self) -> Iterator[list[Any]]:
        assert self._source is not None
        assert self._stream is not None
        cut = cut_stream(self._source, self._making.batch_size, self._stream.limit)
        return iter(lambda: list(islice(cut, STREAMED)), [])

    def _batches(self, share: list[Any]) -> Iterator[Batch]:
        making = self._making
        return (read_batch(rows, making.transform, making.stacked) for rows in share)


class GivenShares(Shares):
    """Batches that a user made: they travel with their share."""

    def shares(self) -> Iterator[list[Inputs]]:
        cpu = torch.device("cpu")
        batches = (
            replace(batch, args=to_device(batch.args, cpu), kwargs=to_device(batch.kwargs, cpu))
            for batch in self
        )
        return iter(lambda: list(islice(batches, STREAMED)), [])

    def _batches(self, share: list[Inputs]) -> Iterator[Inputs]:
        return iter(share)


def shares_of(stream: Stream) -> Shares:
    """The batches of the stream for an engine whose workers live in other processes."""
    if isinstance(stream.source, ImageSource):
        return ListedShares(stream, stream.source)
    if isinstance(stream.source, ImageStream):
        return StreamedShares(stream, stream.source)
    return GivenShares(stream)


def share_size(batches: int) -> int:
    """Batches of a share, by the number of all. Enough shares that every worker has some and that
    little is lost with one; few enough that the process that merges them keeps up with any number
    of workers.
    """
    return max(1, min(batches // FEW, SMALL), -(-batches // MOST))


def _ahead(load: Any, numbers: range, threads: int) -> Iterator[Batch]:
    """What load(number) gives, in order; some threads read ahead while a GPU works."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Any] = deque()
        for number in numbers:
            waiting.append(pool.submit(load, number))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


__all__ = ["Note", "Shares", "share_size", "shares_of"]

"""What an engine and its workers agree on. An engine knows neither models nor statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, Self, TypeVar


class Worker(Protocol):
    """Takes batches one by one and keeps what it made of them.

    A context manager: what it needs for its work (hooks on a model) is there inside of the block
    only. What it keeps survives the block and pickling, so that it may come back from another
    process. Merged workers hold what one worker would hold that had seen all their batches,
    whichever of them saw which batch and in whatever order and grouping they merge.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: Any) -> None: ...

    def update(self, batch: Any) -> None:
        """Work on one batch; inside of the block."""

    def merge(self, other: Self) -> None:
        """Take over what another worker kept of other batches."""


W = TypeVar("W", bound=Worker)


class Batches(Protocol):
    """Batches that may be read here, one after the other, or in other processes, share by share.

    A share is a few batches that follow each other; how many depends on the plan alone, so that
    the shares are the same for any number of workers. The batches travel to each process once, and
    leave behind what can be read here only; a share is picklable and small.
    """

    def __iter__(self) -> Iterator[Any]:
        """All of them, read in this process."""

    def shares(self) -> Iterator[Any]:
        """The shares in order, made one at a time; there may be no end that is known."""

    def read(self, share: Any) -> Iterator[Any]:
        """The batches of a share, in any process."""

    def note(self) -> Any:
        """What is to be told, in the process of the job, of the share that was read last."""


class Engine(Protocol):
    """Deals batches out to workers and returns one that holds what all of them kept.

    Batches come cut: an engine never splits or joins them, so every engine runs the same ones.
    """

    def __call__(
        self, make_worker: Callable[[], W], batches: Iterable[Any], report: Callable[[Any], None]
    ) -> W:
        """`make_worker` is picklable where its model is, so that it can be called in another
        process; `report(batch)` is called here, once for each batch that was worked on.
        """

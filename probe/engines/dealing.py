"""Shares go out to the processes of a pool, parts come back; a share that was lost with its process
goes out once more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

from probe.engines.protocol import Batches, W
from probe.engines.replica import Failed, Lost, Outcome, Part
from probe.engines.tree import Tree
from probe.errors import ProbeError

Report = Callable[[Any], None]


@dataclass(frozen=True)
class Means:
    """What a user says of the processes.

    workers: how many; None: the pool's own choice. address: of the machines; None: this one.
    gpus: may a process have a GPU of its own?
    """

    workers: int | None = None
    address: str | None = None
    gpus: bool = True


class Pool(AbstractContextManager["Pool"], Protocol):
    """Processes that work on shares, inside of the block."""

    def __enter__(self) -> Self: ...

    @property
    def free(self) -> int:
        """How many shares could be started now."""

    def start(self, number: int, share: Any) -> None: ...

    def finished(self) -> list[tuple[int, Outcome]]:
        """Waits until something happens; the shares that came to an end, if any. A process that
        died has been replaced.
        """


@dataclass(frozen=True)
class Elsewhere:
    """An engine whose workers live in other processes: a pool of them makes it one.

    open_pool(job, means): `job` is the pair (make_worker, batches), of which each process gets a
    copy.
    """

    open_pool: Callable[[tuple[Any, Batches], Means], Pool]
    means: Means = Means()

    def __call__(
        self,
        make_worker: Callable[[], W],
        batches: Batches,
        report: Report,
        tree: Tree | None = None,
    ) -> W:
        """`report` gets the note of each share. `tree`: the shares that need no work, and it takes
        the others up.
        """
        with self.opened(make_worker, batches) as run:
            return run(batches, report, tree)

    @contextmanager
    def opened(self, make_worker: Callable[[], W], batches: Batches) -> Iterator[Callable[..., W]]:
        """Inside of the block the processes are there, and work as often as they are asked to:

        with engine.opened(make_worker, batches) as run:
            worker = run(batches, report)  # `batches` may come in other shares each time
        """
        with self.open_pool((make_worker, batches), self.means) as pool:

            def run(batches: Batches, report: Report, tree: Tree | None = None) -> W:
                tree = Tree() if tree is None else tree
                deal(pool, batches.shares(), report, tree)
                merged: W | None = tree.merged()
                return make_worker() if merged is None else merged

            yield run


def deal(pool: Pool, shares: Iterator[Any], report: Report, tree: Tree) -> None:
    """Every share that is not in the tree is worked on and put there, exactly once.

    Raises what the work on a share raised, and ProbeError where a share was lost twice.
    """
    dealing = _Dealing(pool, shares, tree)
    dealing.start()
    while dealing.running or dealing.waiting:
        ended = pool.finished()
        for number, outcome in ended:
            dealing.end(number, outcome)
        dealing.start()  # the others work on while this process merges
        for number, outcome in ended:
            if isinstance(outcome, Failed):
                raise outcome.again()
            if isinstance(outcome, Part):
                tree.put(number, outcome.worker)
                report(outcome.note)
    if len(tree) != dealing.counted:
        raise ProbeError(f"{len(tree)} of {dealing.counted} shares of the images were worked on")


class _Dealing:
    """Which shares are under way, which were lost, which are to come."""

    def __init__(self, pool: Pool, shares: Iterator[Any], tree: Tree) -> None:
        self.running: dict[int, Any] = {}
        self.counted = 0  # of all shares
        self._pool = pool
        self._losses: Counter[int] = Counter()
        self._lost: list[tuple[int, Any]] = []  # to be worked on again
        self._ahead: tuple[int, Any] | None = None  # looked at already
        self._next = self._to_do(shares, Tree(dict.fromkeys(tree.nodes, b"")))

    @property
    def waiting(self) -> bool:
        """Is there a share to be started?"""
        if self._ahead is None:
            self._ahead = self._lost.pop() if self._lost else next(self._next, None)
        return self._ahead is not None

    def start(self) -> None:
        """As many as there is room for."""
        while self._pool.free and self.waiting:
            assert self._ahead is not None
            (number, share), self._ahead = self._ahead, None
            self.running[number] = share
            self._pool.start(number, share)

    def end(self, number: int, outcome: Outcome) -> None:
        """A share is not under way any more; one that was lost starts again, once."""
        share = self.running.pop(number)
        if not isinstance(outcome, Lost):
            return
        self._losses[number] += 1
        if self._losses[number] > 1:
            raise ProbeError(_lost_twice(number))
        self._lost.append((number, share))

    def _to_do(self, shares: Iterator[Any], before: Tree) -> Iterator[tuple[int, Any]]:
        for number, share in enumerate(shares):
            self.counted += 1
            if number not in before:
                yield number, share


def _lost_twice(number: int) -> str:
    return (
        f"two worker processes died while they worked on share {number} of the images (killed, or "
        "out of memory?): give fewer --workers or a smaller --batch-size"
    )


__all__ = ["Elsewhere", "Means", "Pool", "deal"]

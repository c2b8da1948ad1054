"""Pools without processes, for the tests of engines; and what dies in a process that is one."""

from __future__ import annotations

import os
import pickle
import random
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from probe.engines import Elsewhere
from probe.engines.replica import Lost, Replica
from support.interrupted import tokens


class HerePool:
    """Shares end in a random order. `lost`: numbers of shares that are lost once for each time that
    they stand there.
    """

    def __init__(self, job: Any, places: int, seed: int, lost: list[int]) -> None:
        self._replica = Replica(pickle.dumps(job), threads=1)
        self._places, self._random, self._lost = places, random.Random(seed), lost
        self._running: dict[int, Any] = {}
        self.started: list[int] = []

    def __enter__(self) -> HerePool:
        return self

    def __exit__(self, *error: Any) -> None: ...

    @property
    def free(self) -> int:
        return self._places - len(self._running)

    def start(self, number: int, share: Any) -> None:
        assert self.free
        self.started.append(number)
        self._running[number] = pickle.dumps(share)

    def finished(self) -> list[tuple[int, Any]]:
        number = self._random.choice(list(self._running))
        share = pickle.loads(self._running.pop(number))
        if number in self._lost:
            self._lost.remove(number)
            return [(number, Lost())]
        return [(number, self._replica.work(share))]


@dataclass(frozen=True)
class Opener:
    """Opens such pools, and remembers them."""

    seed: int = 0
    lost: list[int] = field(default_factory=list)
    pools: list[HerePool] = field(default_factory=list)

    def __call__(self, job: Any, means: Any) -> HerePool:
        self.pools.append(HerePool(job, means.workers or 1, self.seed, self.lost))
        return self.pools[-1]


def here(**options: Any) -> Elsewhere:
    """An engine whose workers live in other processes, but for that they live in this one."""
    return Elsewhere(Opener(**options))


class Numbers:
    """Batches 0, 1, 2, ... in shares of two."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __iter__(self) -> Any:
        return iter(range(self.number))

    def shares(self) -> Any:
        return (range(at, min(at + 2, self.number)) for at in range(0, self.number, 2))

    def read(self, share: range) -> Any:
        return iter(share)

    def note(self) -> str:
        return "read"


@dataclass
class Collector:
    """A worker that keeps its batches, sorted; `deadly` kills its process once, where `flag` says
    that it was not yet.
    """

    flag: Path | None = None
    deadly: int = -1
    batches: list[int] = field(default_factory=list)

    def __enter__(self) -> Collector:
        return replace(self, batches=[])

    def __exit__(self, *error: Any) -> None: ...

    def update(self, batch: int) -> None:
        if batch == self.deadly:
            kill_once(self.flag)
        self.batches.append(batch)

    def merge(self, other: Collector) -> None:
        self.batches = sorted(self.batches + other.batches)


@dataclass(frozen=True)
class DeadlyTokens:
    """The transform of `interrupted.job`; its process is killed the first time that it sees so many
    images.
    """

    flag: Path
    after: int
    seen: list[int] = field(default_factory=list)

    def __call__(self, image: Any) -> Any:
        self.seen.append(1)
        if len(self.seen) == self.after:
            kill_once(self.flag)
        return tokens(image)


def kill_once(flag: Path | None) -> None:
    """SIGKILL for this process, unless the file is there; None: again and again."""
    if flag is None or not flag.exists():
        if flag is not None:
            flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)


__all__ = ["Collector", "DeadlyTokens", "Numbers", "here"]

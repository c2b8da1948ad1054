"""Run the batches of a plan one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol


class Worker(Protocol):
    """What an engine drives: it knows neither models nor statistics."""

    def update(self, batch: Any) -> None: ...

    def merge(self, other: Any) -> None: ...


def run(make_worker: Callable[[], Any], batches: Iterable[Any], done: Callable[[Any], None]) -> Any:
    """Feed every batch to one worker, call `done(batch)` after each, return the worker."""
    worker = make_worker()
    for batch in batches:
        worker.update(batch)
        done(batch)
    return worker

"""Run the batches one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from probe.engines.protocol import W


def run(
    make_worker: Callable[[], W],
    batches: Iterable[Any],
    report: Callable[[Any], None],
    share: int | None = None,
) -> W:
    """One worker for all batches; or, with `share`, a new worker after every so many batches, each
    merged into the first: what other engines do at the same time.
    """
    first: W | None = None
    shares = groupby(enumerate(batches), lambda item: item[0] // share if share else 0)
    for _, numbered in shares:
        with make_worker() as worker:
            for _, batch in numbered:
                worker.update(batch)
                report(batch)
        if first is None:
            first = worker
        else:
            first.merge(worker)
    return make_worker() if first is None else first

"""Progress on stderr: a bar with images/s and time left on a terminal, otherwise a plain line every
few seconds.

`progress_bar` gives the callable that every job takes: `progress(stage, done, total, message="")`,
total None while unknown. It says the first stage at once, so that slow imports and downloads do not
look like a hang.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from probe.formatting import visible
from probe.records import Progress, silent

EVERY = 5.0  # seconds between plain lines
UNITS = {
    "convert": "passes",
    "calibrate": "layers",
    "images": "images",
    "capture": "images",
    "attention": "images",
    "store": "layers",
    "fit": "layers",
    "figures": "figures",
    "plot": "figures",
    "report": "curves",
    "read": "images",
    "train": "images",
    "evaluate": "images",
}

TOLD = ("train",)  # stages whose message tells the place (epoch 3/30)
NARROW = 100  # columns under which the bar is short


def duration(seconds: float) -> str:
    """`12 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Stage:
    """When a stage began, and with how much done: its first report may come after some work, whose
    time is not known.
    """

    def __init__(self, name: str, done: int, clock: Callable[[], float]) -> None:
        self.name = name
        self.unit = UNITS.get(name, "")
        self._clock = clock
        self._began = clock()
        self._before = done
        self.done = done
        self.total: int | None = None

    def count(self) -> str:
        """`16/64 images`, without the total while it is unknown."""
        done = f"{self.done}/{self.total}" if self.total else f"{self.done or ''}"
        return f"{done} {self.unit}".strip() if done else ""

    def line(self, message: str) -> str:
        """Facts and message in one line; the message first of a stage that tells its place in it,
        as a narrow terminal cuts the end.
        """
        parts = [message, self.facts()] if self.name in TOLD else [self.facts(), message]
        return ", ".join(part for part in parts if part)

    def facts(self) -> str:
        """`12.1 images/s, 3 s left`, as far as known."""
        seconds, done = self._clock() - self._began, self.done - self._before
        if done <= 0 or seconds <= 0:
            return ""
        parts = [f"{done / seconds:.3g} {self.unit}/s"] if self.unit else []
        if self.total and self.done < self.total:
            parts.append(f"{duration(seconds * (self.total - self.done) / done)} left")
        return ", ".join(reversed(parts) if self.name in TOLD else parts)


class PlainProgress:
    """One line when a stage begins, then every few seconds, and when it is done."""

    def __init__(
        self, stream: Any = None, every: float = EVERY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._every = every
        self._clock = clock
        self._stage: Stage | None = None
        self._said = 0.0
        self._finished = False

    def __call__(self, stage: str, done: int, total: int | None, message: str = "") -> None:
        fresh = self._stage is None or self._stage.name != stage
        if fresh:
            self._stage, self._finished = Stage(stage, done, self._clock), False
        assert self._stage is not None
        self._stage.done, self._stage.total = done, total
        finished = total is not None and done >= total
        due = self._clock() - self._said >= self._every
        if fresh or due or (finished and not self._finished):
            self._say(self._stage, message)
        self._finished = finished

    def _say(self, stage: Stage, message: str) -> None:
        self._said = self._clock()
        details = ", ".join(part for part in (stage.count(), stage.facts(), message) if part)
        line = f"{stage.name}: {details}" if details else stage.name
        print(visible(line), file=self._stream, flush=True)


class BarProgress:
    """A rich bar per stage. It turns by itself, so a stage that reports nothing for long (a
    download) still looks alive.
    """

    def __init__(self, bar: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._bar = bar
        self._clock = clock
        self._stage: Stage | None = None
        self._task: Any = None

    def __call__(self, stage: str, done: int, total: int | None, message: str = "") -> None:
        if self._stage is None or self._stage.name != stage:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._stage = Stage(stage, done, self._clock)
            self._task = self._bar.add_task(stage, total=total, count="", facts="")
        self._stage.done, self._stage.total = done, total
        self._bar.update(
            self._task,
            completed=done,
            total=total,
            count="" if stage in TOLD else self._stage.count(),
            facts=visible(self._stage.line(message)),
        )


def rich_bar(console: Any) -> Any:
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    facts = TextColumn(
        "{task.fields[facts]}",
        markup=False,
        table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
    )
    name = TextColumn("{task.description}", markup=False)
    count = TextColumn("{task.fields[count]}", markup=False)
    bar = BarColumn(10 if console.width < NARROW else 20)
    columns = (SpinnerColumn(), name, bar, count, TimeElapsedColumn(), facts)
    return Bar(*columns, console=console, transient=True, expand=True)


@contextmanager
def progress_bar(quiet: bool, first: str = "load", message: str = "") -> Iterator[Progress]:
    """The progress callable for a job: bar, plain lines or nothing. `first` is the stage said at
    once.
    """
    if quiet:
        yield silent
        return
    if not sys.stderr.isatty():
        plain = PlainProgress()
        plain(first, 0, None, message)
        yield plain
        return
    from rich.console import Console

    with rich_bar(Console(stderr=True)) as bar:
        shown = BarProgress(bar)
        shown(first, 0, None, message)
        yield shown

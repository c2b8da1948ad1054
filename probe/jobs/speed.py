"""What changing a network buys: the time of its forward pass before and after, as it is (eager) and
compiled by torch, for one image and for many.

Both networks take turns, in pairs whose order alternates, so that the load of the machine touches
both; the ratio of each pair is taken, and their median and quartiles are told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from probe.errors import named_first_line
from probe.jobs.inputs import Inputs
from probe.records import Progress, silent

BATCHES = (1, 32)
EAGER, COMPILED = "eager", "compiled"
PAIRS = (5, 40)  # at least, at most
SECONDS = 4.0  # after which no further pair begins, once there are enough


@dataclass(frozen=True)
class Speed:
    """Forward passes of one kind. Milliseconds are medians; ratio: median over pairs of the time
    before over the time after (above 1: faster now), low and high its quartiles. note: why there
    are no numbers.
    """

    mode: str
    batch: int
    before_ms: float | None
    after_ms: float | None
    ratio: float | None
    low: float | None
    high: float | None
    pairs: int
    note: str = ""

    @property
    def verdict(self) -> str:
        """faster, slower, or no difference where half of the pairs do not agree on it."""
        if self.low is None or self.high is None:
            return "not measured"
        return "faster" if self.low > 1 else "slower" if self.high < 1 else "no difference"


def measure_speed(
    before: nn.Module,
    after: nn.Module,
    inputs: Inputs,
    *,
    modes: Sequence[str] = (EAGER, COMPILED),
    batches: Sequence[int] = BATCHES,
    progress: Progress = silent,
) -> list[Speed]:
    """A row per mode and batch. inputs: of which batches are made, repeated where they are too few.

    What torch.compile cannot do is a row with a note; the other rows remain.
    """
    rows: list[Speed] = []
    total = len(modes) * len(batches)
    with _at_rest(before, after):
        for mode in modes:
            for batch in batches:
                progress("time", len(rows), total)
                rows.append(_row(mode, (before, after), _sized(inputs, batch), batch))
    progress("time", total, total)
    return rows


def speed_rows(speeds: Sequence[Speed]) -> list[dict[str, Any]]:
    """As files and --json say it."""
    return [{**asdict(speed), "verdict": speed.verdict} for speed in speeds]


def _row(mode: str, modules: tuple[nn.Module, nn.Module], inputs: Inputs, batch: int) -> Speed:
    passes = [timed_pass(module, mode, inputs) for module in modules]
    try:
        for run in passes:  # compiles, and warms up
            run()
            run()
    except Exception as error:  # compilers raise many types; without them the rest is as useful
        if mode == EAGER:
            raise
        note = f"torch.compile: {named_first_line(error)[:200]}"
        return Speed(mode, batch, None, None, None, None, None, 0, note)
    times = np.asarray(_pairs(*passes))
    low, ratio, high = np.quantile(times[:, 0] / times[:, 1], [0.25, 0.5, 0.75])
    first, second = 1000 * np.median(times, axis=0)
    return Speed(
        mode,
        batch,
        float(first),
        float(second),
        float(ratio),
        float(low),
        float(high),
        len(times),
    )


def timed_pass(module: nn.Module, mode: str, inputs: Inputs) -> Callable[[], float]:
    """One forward pass; gives its seconds."""
    call: Any = module if mode == EAGER else torch.compile(module, dynamic=False)

    def run() -> float:
        with torch.inference_mode():
            _wait()
            began = time.perf_counter()
            call(*inputs.args, **inputs.kwargs)
            _wait()
        return time.perf_counter() - began

    return run


def _pairs(before: Callable[[], float], after: Callable[[], float]) -> list[tuple[float, float]]:
    """Seconds of both, pair by pair."""
    times: list[tuple[float, float]] = []
    least, most = PAIRS
    began = time.perf_counter()
    while len(times) < least or (len(times) < most and time.perf_counter() - began < SECONDS):
        if len(times) % 2:
            second = after()
            times.append((before(), second))
        else:
            first = before()
            times.append((first, after()))
    return times


def _sized(inputs: Inputs, batch: int) -> Inputs:
    """The first images, over again where there are too few."""
    rows = torch.arange(batch) % len(inputs)

    def sized(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and len(value) == len(inputs):
            return value[rows.to(value.device)]
        return value

    args = tuple(sized(value) for value in inputs.args)
    kwargs = {name: sized(value) for name, value in inputs.kwargs.items()}
    images = inputs.images[rows.numpy()]
    return Inputs(args, kwargs, images, inputs.groups[rows.numpy()])


@contextmanager
def _at_rest(*modules: nn.Module) -> Iterator[None]:
    """In evaluation mode; what torch.compile remembers is forgotten at the end."""
    modes = {each: each.training for module in modules for each in module.modules()}
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        torch.compiler.reset()
        for each, mode in modes.items():
            each.training = mode


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()

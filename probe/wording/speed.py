"""What a changed network's forward pass takes beside the original's, in lines below a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from probe.formatting import number


def speed_lines(speeds: Sequence[Any]) -> Iterator[str]:
    """A line per mode and batch, then what it comes to. speeds: as probe.jobs.speed gives them."""
    if not speeds:
        return
    for speed in speeds:
        what = f"{speed.mode}, {images(speed.batch)}"
        if speed.ratio is None:
            yield f"forward pass, {what}: not measured ({speed.note})"
            continue
        yield (
            f"forward pass, {what}: {number(speed.before_ms)} ms before, "
            f"{number(speed.after_ms)} ms after, {speed.ratio:.2f} times as fast "
            f"[{speed.low:.2f}, {speed.high:.2f}], {speed.verdict}"
        )
    yield "in brackets: quartiles of the ratio over pairs of passes taken in turns"
    yield conclusion(speeds)


def conclusion(speeds: Sequence[Any]) -> str:
    """One sentence."""
    verdicts = [speed.verdict for speed in speeds if speed.ratio is not None]
    if "faster" not in verdicts:
        return "it buys no time on this machine"
    if set(verdicts) == {"faster"}:
        return "it is faster on this machine"
    return f"it is faster on this machine in {verdicts.count('faster')} of {len(verdicts)} cases"


def images(batch: int) -> str:
    return f"{batch} image{'s' if batch > 1 else ''}"

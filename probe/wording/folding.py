"""What a fold comes to, in sentences; `fold` as FoldedModel.as_dict gives it
(probe.jobs.folding.fold_model).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from probe.formatting import number
from probe.wording.phrases import plural


def folded(fold: Mapping[str, Any]) -> Iterator[str]:
    """How much was folded, why the rest is kept, and what remains to be computed."""
    rows = fold["layers"]
    count = sum(row["status"] == "folded" for row in rows)
    before, after = fold["before"], fold["after"]
    yield f"{fold['model']['name']}: {count} of {len(rows)} affine maps folded"
    yield from kept(rows)
    yield f"normalization layers that compute: {before['norms']} before, {after['norms']} after"
    yield f"with an affine of their own: {before['affines']} before, {after['affines']} after"


def deviation(fold: Mapping[str, Any]) -> str:
    """How far the outputs moved."""
    relative = number(fold["relative_deviation"], 2)
    return (
        f"largest change of an output on {images(fold)}: {number(fold['deviation'], 2)}, "
        f"{relative} of the largest |output|"
    )


def kept(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One line for reasons that differ in names with numbers only (`add (blocks.0)`, `add
    (blocks.1)`).
    """
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["status"] == "kept":
            alike.setdefault(re.sub(r"[\w.]*\d[\w.]*", "", row["reason"]), []).append(row)
    for first, *others in alike.values():
        yield (
            f"kept: {first['layer']}{f' and {len(others)} alike' if others else ''}: "
            f"{first['reason']}"
        )


def images(fold: Mapping[str, Any]) -> str:
    return plural(fold["images"], "image")


def times(fold: Mapping[str, Any]) -> str:
    """Both times come from one run, taken in turns."""
    before, after = fold["seconds_before"], fold["seconds_after"]
    cost = [
        f"{milliseconds(item['best'])} ms (median {milliseconds(item['median'])})"
        for item in (before, after)
    ]
    ratio = before["best"] / after["best"]
    where = f"{fold['model']['device']}, {plural(fold['threads'], 'thread')}"
    what = f"forward pass of {images(fold)} on {where}, best of {fold['repeats']}"
    return f"{what}: {cost[0]} before, {cost[1]} after, {ratio:.2f} times as fast"


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f}" if seconds >= 0.1 else number(1000 * seconds)

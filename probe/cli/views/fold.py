"""The result of a fold: a document for machines, or a table and a few lines for people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from probe.cli.terminal import print_json, print_table
from probe.cli.views.grid import columns_of
from probe.cli.views.speed import speed_lines
from probe.formatting import number
from probe.wording.columns import FOLD
from probe.wording.notes import warnings_of
from probe.wording.phrases import plural


def show(done: Mapping[str, Any], as_json: bool) -> None:
    """`done` as FoldedModel.as_dict gives it."""
    if as_json:
        print_json({**done, "warnings": warnings_of(done)})
        return
    rows = done["layers"]
    styles = ["" if row["status"] == "folded" else "dim" for row in rows]
    print_table(columns_of(FOLD, rows), rows, list(lines(done)), styles)


def lines(done: Mapping[str, Any]) -> Iterator[str]:
    """What the table does not say: why layers are kept, counts, deviation, times, where the file
    is.
    """
    rows = done["layers"]
    folded = sum(row["status"] == "folded" for row in rows)
    before, after = done["before"], done["after"]
    yield f"{done['model']['name']}: {folded} of {len(rows)} affine maps folded"
    yield from kept(rows)
    yield f"normalization layers that compute: {before['norms']} before, {after['norms']} after"
    yield f"with an affine of their own: {before['affines']} before, {after['affines']} after"
    relative = number(done["relative_deviation"], 2)
    yield (
        f"largest change of an output on {images(done)}: {number(done['deviation'], 2)}, "
        f"{relative} of the largest |output|"
    )
    yield times(done)
    yield from speed_lines([SimpleNamespace(**row) for row in done.get("speed", [])])
    yield f'file: {done["file"]}; load it with probe.load_folded("{done["file"]}")'
    yield from (f"WARNING: {line}" for line in warnings_of(done))


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


def images(done: Mapping[str, Any]) -> str:
    return plural(done["images"], "image")


def times(done: Mapping[str, Any]) -> str:
    """Both times come from one run, taken in turns."""
    before, after = done["seconds_before"], done["seconds_after"]
    cost = [
        f"{milliseconds(item['best'])} ms (median {milliseconds(item['median'])})"
        for item in (before, after)
    ]
    ratio = before["best"] / after["best"]
    where = f"{done['model']['device']}, {plural(done['threads'], 'thread')}"
    what = f"forward pass of {images(done)} on {where}, best of {done['repeats']}"
    return f"{what}: {cost[0]} before, {cost[1]} after, {ratio:.2f} times as fast"


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f}" if seconds >= 0.1 else number(1000 * seconds)

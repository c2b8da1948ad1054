"""What a conversion tells people: one row per layer, then what the converted model is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from probe.cli.terminal import print_json, print_table
from probe.cli.views.grid import Row, columns_of
from probe.formatting import records
from probe.wording.columns import CONVERSION
from probe.wording.conversion import left_as_they_were, measured_on, refinement, replacement
from probe.wording.speed import speed_lines


def summary(result: Any, rows: Sequence[Row]) -> Iterator[str]:
    """The converted model in a few lines."""
    from probe.norms.registry import norm_families

    yield from replacement(result, rows)
    yield from refinement(result)
    yield from speed_lines(result.speed)
    yield measured_on(result)
    yield from result.notes
    yield from left_as_they_were(result, rows, norm_families(result.asked["norm"]))
    if result.files:
        yield f"saved: {', '.join(str(path) for path in result.files)}"
        yield f"load it: probe.load_converted({str(result.files[0])!r})"
    elif result.swap:
        yield "nothing was written; --out FILE.safetensors saves the converted model"
    else:
        yield "nothing was written"


def document(result: Any, run: str, rows: Sequence[Row]) -> dict[str, Any]:
    """The JSON form."""
    from probe.jobs.converting.result import steps_taken

    score = {name: getattr(result.score, name) for name in ("kl", "agreement", "accuracy")}
    return {
        "run": run,
        **result.asked,
        "tolerance": result.tolerance,
        "images": result.images,
        "data": result.data,
        "layers": list(rows),
        "converted": score,
        "accuracy_before": result.accuracy,
        **steps_taken(result),
        "notes": result.notes,
        "files": [str(path) for path in result.files],
    }


def show(result: Any, run: str, as_json: bool) -> None:
    rows = records(result.table)
    if as_json:
        print_json(document(result, run, rows))
        return
    styles = ["" if row["replaced"] else "dim" for row in rows]
    print_table(columns_of(CONVERSION, rows), rows, list(summary(result, rows)), styles)

"""What a conversion tells people: one row per layer, then what the converted model is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from probe.cli.terminal import print_json, print_table
from probe.cli.views.grid import Column, Row
from probe.formatting import number, percent, records

SHOWN = 5  # layers that cannot be replaced, named below the table


def fate(row: Row) -> str:
    """replaced; kept, not being within the tolerance; or left out, having no curve."""
    return "replaced" if row["replaced"] else "left out" if row["reason"] else "kept"


def columns(labelled: bool) -> list[Column]:
    """With labels the top-1 of the changed model stands beside its agreement with the original."""
    found = [
        Column("layer", lambda row: str(row["layer"]), left=True),
        Column("form", lambda row: str(row["form"] or "-"), rank=1, left=True),
        Column("rel. error", lambda row: number(row["rel_error"])),
        Column("KL alone", lambda row: number(row["kl"])),
        Column("same % alone", lambda row: percent(row["agreement"]), rank=2),
        Column("top-1 % alone", lambda row: percent(row["accuracy"]), rank=3),
        Column("error so far", lambda row: number(row["rel_error_cumulative"]), rank=4),
        Column("KL so far", lambda row: number(row["kl_cumulative"])),
        Column("same % so far", lambda row: percent(row["agreement_cumulative"])),
        Column("top-1 % so far", lambda row: percent(row["accuracy_cumulative"])),
        Column("result", fate, left=True),
    ]
    return [column for column in found if labelled or not column.header.startswith("top-1")]


def summary(done: Any, rows: Sequence[Row]) -> list[str]:
    """The converted model in a few lines."""
    replaced = [row for row in rows if row["replaced"]]
    forms = ", ".join(
        f"{count} {form}"
        for form, count in Counter(str(row["form"]) for row in replaced).most_common()
    )
    lines = [
        f"{len(replaced)} of {len(rows)} layers replaced by "
        f"{done.asked['norm']}{f' ({forms})' if forms else ''}"
    ]
    if done.tolerance is not None:
        bound = "top-1 falls by" if done.accuracy is not None else "the class changes for"
        lines.append(
            f"tolerance: {bound} at most {percent(done.tolerance)} % of the images; layers taken "
            "by their KL alone"
        )
    if replaced:
        lines.append(
            f"converted model: KL {number(done.score.kl)} nats, same top-1 class as the original "
            f"{percent(done.score.agreement)} %"
        )
    if done.accuracy is not None:
        lines.append(
            f"top-1: {percent(done.accuracy)} % before, {percent(done.score.accuracy)} % after"
        )
    lines.append(f"measured on {done.images} images: {done.data}")
    return lines + advice(done, rows)


def advice(done: Any, rows: Sequence[Row]) -> list[str]:
    """Layers that cannot be replaced, lines that could be curves, notes, files."""
    lines = list(done.notes)
    if lost := [row for row in rows if row["reason"]]:
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        named = ", ".join(f"{row['layer']} ({row['reason']})" for row in lost[:SHOWN])
        lines.append(f"left out: {named}{more}")
    lines_only = [row for row in rows if row["form"] == "line" and not row["affine"]]
    asked = done.asked
    if (
        lines_only
        and asked["curves"] != "all"
        and asked["scope"] == "channel"
        and asked["norm"] != "learnable_scaler"
    ):
        lines.append(
            f"lines for lack of an established curve: {len(lines_only)} layers; --curves all "
            "gives each its curve of least loss"
        )
    if done.files:
        lines.append(f"saved: {', '.join(str(path) for path in done.files)}")
        lines.append(f"load it: probe.load_converted({str(done.files[0])!r})")
    else:
        lines.append(
            "nothing was written; --out FILE.safetensors saves the converted model"
            if done.swap
            else "nothing was written"
        )
    return lines


def document(done: Any, run: str, rows: Sequence[Row]) -> dict[str, Any]:
    """The JSON form."""
    score = {name: getattr(done.score, name) for name in ("kl", "agreement", "accuracy")}
    return {
        "run": run,
        **done.asked,
        "tolerance": done.tolerance,
        "images": done.images,
        "data": done.data,
        "layers": list(rows),
        "converted": score,
        "accuracy_before": done.accuracy,
        "notes": done.notes,
        "files": [str(path) for path in done.files],
    }


def show(done: Any, run: str, as_json: bool) -> None:
    rows = records(done.table)
    if as_json:
        print_json(document(done, run, rows))
        return
    styles = ["" if row["replaced"] else "dim" for row in rows]
    print_table(columns(done.accuracy is not None), rows, summary(done, rows), styles)

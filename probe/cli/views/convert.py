"""What a conversion tells people: one row per layer, then what the converted model is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from probe.cli.terminal import print_json, print_table
from probe.cli.views.grid import Column, Row
from probe.cli.views.speed import speed_lines
from probe.formatting import number, percent, records

TRAINED = {"norms": "the norms' parameters", "all": "all parameters"}
SHOWN = 5  # layers that cannot be replaced, named below the table


def fate(row: Row) -> str:
    """replaced; kept, not being within the tolerance; or left out, having no curve."""
    return "replaced" if row["replaced"] else "left out" if row["reason"] else "kept"


def columns(labelled: bool) -> list[Column]:
    """With labels the top-1 of the changed model stands beside its agreement with the original."""
    every = [
        Column("layer", lambda row: str(row["layer"]), left=True),
        Column("family", lambda row: str(row["family"] or "-"), rank=1, left=True),
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
    return [column for column in every if labelled or not column.header.startswith("top-1")]


def summary(result: Any, rows: Sequence[Row]) -> list[str]:
    """The converted model in a few lines."""
    replaced = [row for row in rows if row["replaced"]]
    counts = Counter(str(row["family"]) for row in replaced).most_common()
    families = ", ".join(f"{count} {family}" for family, count in counts)
    lines = [
        f"{len(replaced)} of {len(rows)} layers replaced by "
        f"{result.asked['norm']}{f' ({families})' if families else ''}"
    ]
    if result.tolerance is not None:
        bound = "top-1 falls by" if result.accuracy is not None else "the class changes for"
        lines.append(
            f"tolerance: {bound} at most {percent(result.tolerance)} % of the images; layers taken "
            "by their KL alone"
        )
    if replaced:
        lines.append(
            f"converted model: KL {number(result.score.kl)} nats, same top-1 class as the original "
            f"{percent(result.score.agreement)} %"
        )
    if result.accuracy is not None:
        lines.append(
            f"top-1: {percent(result.accuracy)} % before, {percent(result.score.accuracy)} % after"
        )
    lines += refined(result)
    lines += speed_lines(result.speed)
    lines.append(f"measured on {result.images} images: {result.data}")
    return lines + advice(result, rows)


def refined(result: Any) -> list[str]:
    """What calibrating and distilling did."""
    lines = []
    if calibration := result.calibration:
        moved = sum(share > 0 for share in calibration.steps.values())
        lines.append(
            f"calibrated {moved} of {len(calibration.steps)} layers on {calibration.images} "
            f"images: mean squared output error {number(calibration.error_before)} before, "
            f"{number(calibration.error_after)} after"
        )
    if learned := result.distillation:
        judged = f"{learned.held_out} held-out" if learned.held_out else "the same"
        best = learned.rounds.iloc[learned.best_round]
        lines.append(
            f"distilled {learned.steps} updates of {TRAINED[learned.train]} on {learned.images} "
            f"images; on {judged} images KL {number(learned.rounds['kl'].iloc[0])} before, "
            f"{number(best['kl'])} after (round {learned.best_round} of {len(learned.rounds) - 1})"
        )
    if len(result.stages) > 1:
        each = [f"{name} {stage(score)}" for name, score in result.stages.items()]
        lines.append(f"on the images measured on: {'; '.join(each)}")
    return lines


def stage(score: Any) -> str:
    """A score in a few words."""
    top1 = f", top-1 {percent(score.accuracy)} %" if score.accuracy is not None else ""
    return f"KL {number(score.kl)}, same class {percent(score.agreement)} %{top1}"


def advice(result: Any, rows: Sequence[Row]) -> list[str]:
    """Layers that cannot be replaced, lines that could be curves, notes, files."""
    lines = list(result.notes)
    if lost := [row for row in rows if row["reason"]]:
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        named = ", ".join(f"{row['layer']} ({row['reason']})" for row in lost[:SHOWN])
        lines.append(f"left out: {named}{more}")
    lines_only = [row for row in rows if row["family"] == "linear" and not row["affine"]]
    if lines_only and _could_be_curves(result.asked):
        lines.append(
            f"lines for lack of an established curve: {len(lines_only)} layers; without --curves "
            "established each gets its curve of least loss"
        )
    if result.files:
        lines.append(f"saved: {', '.join(str(path) for path in result.files)}")
        lines.append(f"load it: probe.load_converted({str(result.files[0])!r})")
    else:
        lines.append(
            "nothing was written; --out FILE.safetensors saves the converted model"
            if result.swap
            else "nothing was written"
        )
    return lines


def _could_be_curves(asked: Mapping[str, str]) -> bool:
    """Would curves that are not established take the place of lines?"""
    from probe.norms.registry import norm_families

    is_curve = norm_families(asked["norm"]) != ("linear",)
    return is_curve and asked["curves"] == "established"


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
    print_table(columns(result.accuracy is not None), rows, summary(result, rows), styles)

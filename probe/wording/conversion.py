"""What a conversion comes to, in sentences: of a `Conversion` (probe.jobs.converting.result) and
the rows of its table (`probe.formatting.records`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from probe.formatting import number, percent
from probe.wording.phrases import Row, listed

TRAINED = {"norms": "the norms' parameters", "all": "all parameters"}
SHOWN = 5  # layers that cannot be replaced, named one by one


def replacement(result: Any, rows: Sequence[Row]) -> Iterator[str]:
    """How many layers were replaced, by what, and what the plain conversion is worth."""
    replaced = [row for row in rows if row["replaced"]]
    counts = Counter(str(row["family"]) for row in replaced).most_common()
    families = ", ".join(f"{count} {family}" for family, count in counts)
    yield (
        f"{len(replaced)} of {len(rows)} layers replaced by "
        f"{result.asked['norm']}{f' ({families})' if families else ''}"
    )
    if result.tolerance is not None:
        bound = "top-1 falls by" if result.accuracy is not None else "the class changes for"
        yield (
            f"tolerance: {bound} at most {percent(result.tolerance)} % of the images; layers taken "
            "by their KL alone"
        )
    if replaced:
        yield (
            f"converted model: KL {number(result.score.kl)} nats, same top-1 class as the original "
            f"{percent(result.score.agreement)} %"
        )
    if result.accuracy is not None:
        after = percent(result.score.accuracy)
        yield f"top-1: {percent(result.accuracy)} % before, {after} % after"


def refinement(result: Any) -> Iterator[str]:
    """What calibrating and distilling did."""
    if calibration := result.calibration:
        moved = sum(share > 0 for share in calibration.steps.values())
        yield (
            f"calibrated {moved} of {len(calibration.steps)} layers on {calibration.images} "
            f"images: mean squared output error {number(calibration.error_before)} before, "
            f"{number(calibration.error_after)} after"
        )
    if learned := result.distillation:
        judged = f"{learned.held_out} held-out" if learned.held_out else "the same"
        best = learned.rounds.iloc[learned.best_round]
        yield (
            f"distilled {learned.steps} updates of {TRAINED[learned.train]} on {learned.images} "
            f"images; on {judged} images KL {number(learned.rounds['kl'].iloc[0])} before, "
            f"{number(best['kl'])} after (round {learned.best_round} of {len(learned.rounds) - 1})"
        )
    if len(result.stages) > 1:
        each = [f"{name} {_stage(score)}" for name, score in result.stages.items()]
        yield f"on the images measured on: {'; '.join(each)}"


def measured_on(result: Any) -> str:
    return f"measured on {result.images} images: {result.data}"


def left_as_they_were(result: Any, rows: Sequence[Row], families: Sequence[str]) -> Iterator[str]:
    """Layers that cannot be replaced, and lines that could be curves. families: those of curves
    that the norm can start as.
    """
    if lost := [f"{row['layer']} ({row['reason']})" for row in rows if row["reason"]]:
        yield f"left out: {listed(lost, SHOWN)}"
    lines_only = [row for row in rows if row["family"] == "linear" and not row["affine"]]
    if lines_only and tuple(families) != ("linear",) and result.asked["curves"] == "established":
        yield (
            f"lines for lack of an established curve: {len(lines_only)} layers; without --curves "
            "established each gets its curve of least loss"
        )


def _stage(score: Any) -> str:
    """A score in a few words."""
    top1 = f", top-1 {percent(score.accuracy)} %" if score.accuracy is not None else ""
    return f"KL {number(score.kl)}, same class {percent(score.agreement)} %{top1}"

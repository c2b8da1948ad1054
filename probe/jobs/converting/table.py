"""What converting costs, layer by layer, and which layers are replaceable within a tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from probe.curves import StandIn
from probe.jobs.converting.evaluate import Comparison
from probe.jobs.converting.scores import Score
from probe.layer_names import Patterns, matches
from probe.models.replacing.swap import Swap
from probe.store import Run

NUMBERS = ("rel_error", "kl", "agreement", "accuracy")
COLUMNS = (
    *("layer", "depth", "kind", "affine", "family"),
    *(*NUMBERS, *(f"{name}_cumulative" for name in NUMBERS)),
    *("replaced", "reason"),
)


def layer_rows(
    run: Run,
    swapped: Swap,
    layers: Patterns,
    stand_ins: Mapping[str, StandIn],
    left_out: Mapping[str, str],
) -> list[dict[str, Any]]:
    """One row per layer of the run that was asked for, in execution order; `reason` says why a
    layer cannot be replaced.
    """
    outcomes = {outcome.layer: outcome for outcome in swapped.outcomes}
    rows = []
    for record in run.layers.to_dict("records"):
        name = record["layer"]
        path = name.partition("#")[0]
        if not matches(path, layers) or path not in outcomes:
            continue
        replaced = outcomes[path].status == "replaced"
        reason = "" if replaced else left_out.get(name, outcomes[path].reason)
        family = stand_ins[name].family if replaced and name in stand_ins else ""
        row = {key: record[key] for key in ("layer", "depth", "kind", "affine")}
        rows.append(row | {"family": family, "reason": reason})
    return rows


def measured(comparison: Comparison, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows with what each layer costs: alone, and behind all the replaced layers before it."""
    names = [row["layer"] for row in rows if row["layer"] in comparison.slots]
    before = {name: names[: place + 1] for place, name in enumerate(names)}
    comparison.ask([*([name] for name in names), *before.values()], errors=True)
    for row in rows:
        name = row["layer"]
        if name not in before:
            continue
        alone, behind = comparison.output_errors[name]
        row |= {"rel_error": alone, **asdict(comparison.score([name]))}
        together = {"rel_error": behind, **asdict(comparison.score(before[name]))}
        row |= {f"{key}_cumulative": value for key, value in together.items()}
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = [column for column in COLUMNS if column.removesuffix("_cumulative") in NUMBERS]
    return table.astype(dict.fromkeys(numbers, "float64"))


def passes(layers: int, tolerance: float | None) -> int:
    """Passes over the images at most: the original, each layer alone, the first ones together, the
    choice.
    """
    return max(1, 2 * layers) + (layers if tolerance is not None else 0)


def loss(score: Score, original: float | None) -> float:
    """What a tolerance is compared with: the drop of accuracy, without labels 1 - agreement."""
    if score.accuracy is not None and original is not None:
        return original - score.accuracy
    return 1 - score.agreement


def choose(comparison: Comparison, table: pd.DataFrame, tolerance: float | None) -> list[str]:
    """The layers to replace, in execution order: all, or those that fit the tolerance together.

    Taken in the order of their KL alone, each only if the loss with those taken before stays within
    the tolerance. This is the greedy choice with its order fixed beforehand: one pass per layer
    instead of one per pair.
    """
    names = table.loc[table["family"] != "", "layer"].tolist()
    if tolerance is None:
        return names
    taken: list[str] = []
    allowed = tolerance + 1e-12  # 0.01 of 100 images is 1 image
    for name in sorted(names, key=lambda layer: comparison.score([layer]).kl):
        if loss(comparison.score([*taken, name]), comparison.accuracy) <= allowed:
            taken.append(name)
    return [name for name in names if name in taken]

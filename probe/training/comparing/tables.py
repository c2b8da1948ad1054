"""The tables of a comparison: `comparison`, one row per norm; `cells`, one row per norm and seed;
`layers` and `attention`, rows of the runs of the final networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from probe.store import Run
from probe.store.schema import ATTENTION
from probe.training.comparing.cells import Outcome
from probe.training.comparing.statistics import paired_difference, spread
from probe.training.comparing.variants import Cell
from probe.training.tracking.tables import HEADS, TRACK, typed

Row = dict[str, Any]
TIMES = ("forward_ms", "forward_ratio", "forward_ratio_low", "forward_ratio_high")

CELL_TABLE = pa.schema(
    [("norm", pa.string()), ("seed", pa.int64()), ("status", pa.string()), ("reason", pa.string())]
    + [(name, pa.float64()) for name in ("lr", "top1", "top5", "val_loss", "train_loss")]
    + [("epochs", pa.int64()), ("parameters", pa.int64()), ("seconds_per_epoch", pa.float64())]
    + [("attention_px", pa.float64())]
)
COMPARISON = pa.schema(
    [("norm", pa.string()), ("n", pa.int64()), ("failed", pa.int64()), ("lr", pa.float64())]
    + [(name, pa.float64()) for name in ("top1_mean", "top1_std", "top1_min", "top1_max")]
    + [("reference", pa.string()), ("pairs", pa.int64())]
    + [(name, pa.float64()) for name in ("difference", "difference_low", "difference_high")]
    + [(name, pa.float64()) for name in ("val_loss_mean", "train_loss_mean")]
    + [("seconds_per_epoch", pa.float64()), ("parameters", pa.int64())]
    + [(name, pa.float64()) for name in (*TIMES, "attention_px_mean", "attention_px_std")]
    + [("reason", pa.string())]
)
GRID_TABLE = pa.schema(
    [("norm", pa.string()), ("lr", pa.float64()), ("status", pa.string()), ("reason", pa.string())]
    + [("top1", pa.float64()), ("val_loss", pa.float64()), ("chosen", pa.bool_())]
)
_KEY = [("norm", pa.string()), ("seed", pa.int64())]
LAYERS = pa.schema(
    [*_KEY, *(field for field in TRACK if field.name not in ("checkpoint", "epoch"))]
)
HEADS_OF_CELLS = pa.schema(
    [*_KEY, *(field for field in HEADS if field.name not in ("checkpoint", "epoch"))]
)


def cell_table(outcomes: Sequence[Outcome], runs: Mapping[Cell, Run]) -> pd.DataFrame:
    """One row per cell; accuracy and losses are those after the last epoch, never the best."""
    rows = [_cell_row(each) | _attention_of(runs.get(each.cell)) for each in outcomes]
    return typed([pd.DataFrame([row]) for row in rows], CELL_TABLE)


def _attention_of(run: Run | None) -> Row:
    """How far its heads look on average; nothing where none was read."""
    if run is None or not run.has(ATTENTION):
        return {}
    return {"attention_px": run.attention()["distance_px"].mean()}


def _cell_row(outcome: Outcome) -> Row:
    row: Row = {
        "norm": outcome.cell.variant.label,
        "seed": outcome.cell.seed,
        "status": outcome.status,
        "reason": outcome.reason or None,
        "lr": outcome.rate,
    }
    if outcome.training is None:
        return row
    epochs = outcome.training.epochs
    last = epochs.iloc[-1]
    return row | {
        **{name: last.get(name) for name in ("top1", "top5", "val_loss", "train_loss")},
        "epochs": int(last["epoch"]),
        "parameters": outcome.training.record["model"]["parameters"],
        "seconds_per_epoch": float(epochs["seconds"].median()),
    }


def comparison_table(
    cells: pd.DataFrame, reference: str, times: Mapping[str, Mapping[str, float]]
) -> pd.DataFrame:
    """One row per norm in the order of the cells. times: of forward passes, by norm."""
    by_norm = {str(name): rows for name, rows in cells.groupby("norm", sort=False)}
    base = _by_seed(by_norm.get(reference, cells.iloc[:0]))
    rows = [
        {"norm": name, "reference": reference}
        | _summary(mine, base if name != reference else {})
        | dict(times.get(name, {}))
        for name, mine in by_norm.items()
    ]
    return typed([pd.DataFrame([row]) for row in rows], COMPARISON)


def _by_seed(rows: pd.DataFrame) -> dict[int, float]:
    """Top-1 of the finished cells."""
    finished = rows[rows["status"] == "finished"]
    return {int(seed): float(top1) for seed, top1 in zip(finished.seed, finished.top1, strict=True)}


def _summary(mine: pd.DataFrame, base: Mapping[int, float]) -> Row:
    values = _by_seed(mine)
    n, mean, std = spread(values)
    paired = paired_difference(values, base)
    reasons = list(dict.fromkeys(mine["reason"].dropna()))
    parameters = mine["parameters"].dropna()
    return {
        "n": n,
        "failed": int((mine["status"] != "finished").sum()),
        "lr": mine["lr"].dropna().median(),
        "top1_mean": mean,
        "top1_std": std,
        "top1_min": min(values.values(), default=None),
        "top1_max": max(values.values(), default=None),
        "pairs": paired.n,
        "difference": paired.mean,
        "difference_low": paired.low,
        "difference_high": paired.high,
        "val_loss_mean": mine["val_loss"].mean(),
        "train_loss_mean": mine["train_loss"].mean(),
        "seconds_per_epoch": mine["seconds_per_epoch"].median(),
        "parameters": int(parameters.iloc[0]) if len(parameters) else None,
        "attention_px_mean": mine["attention_px"].mean(),
        "attention_px_std": mine["attention_px"].std(),
        "reason": "; ".join(reasons) or None,
    }


def layer_table(runs: Mapping[Cell, Run]) -> pd.DataFrame:
    """One row per cell and layer: what was fitted to it after the training."""
    parts = [run.alphas().assign(**_key(cell)) for cell, run in runs.items()]
    return typed(parts, LAYERS)


def head_table(runs: Mapping[Cell, Run]) -> pd.DataFrame:
    """One row per cell, attention layer and head; empty for networks without attention."""
    with_heads = {cell: run for cell, run in runs.items() if run.has(ATTENTION)}
    parts = [run.attention().assign(**_key(cell)) for cell, run in with_heads.items()]
    return typed(parts, HEADS_OF_CELLS)


def grid_table(rows: Sequence[Row]) -> pd.DataFrame:
    return typed([pd.DataFrame([row]) for row in rows], GRID_TABLE)


def _key(cell: Cell) -> Row:
    return {"norm": cell.variant.label, "seed": cell.seed}

"""The tables of a tracking, made of the runs of its checkpoints: `track`, one row per checkpoint
and layer, and `attention`, one row per checkpoint, layer and head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from probe.formatting import csv_bytes
from probe.store import Run
from probe.store.encode import parquet_bytes
from probe.store.schema import ATTENTION, TABLES
from probe.training.tracking.checkpoints import Checkpoint

FAILED = "failed"  # status of a checkpoint that could not be opened; `reason` says why

_NUMBERS = (
    *("alpha", "alpha_low", "alpha_high", "alpha_channel", "own_alpha"),
    *("gamma", "beta", "slope", "r2", "linear_r2", "r2_ceiling"),
    *("gain", "gain_low", "gain_high", "channel_gain"),
    *("input_std", "inverse_std", "beyond_linear", "saturation"),
    *("max_abs_input", "min_input", "max_input"),
    *("slope_min", "slope_median", "slope_max"),
)
_COUNTS = ("massive_channels", "images", "sources", "sources_to_decide")

TRACK = pa.schema(
    [("checkpoint", pa.string()), ("epoch", pa.int64()), ("layer", pa.string())]
    + [("depth", pa.int32()), ("kind", pa.string()), ("channels", pa.int32())]
    + [("status", pa.string()), ("reason", pa.string()), ("established", pa.bool_())]
    + [(name, pa.float64()) for name in _NUMBERS]
    + [(name, pa.int64()) for name in _COUNTS]
)
HEADS = pa.schema([("checkpoint", pa.string()), ("epoch", pa.int64()), *TABLES[ATTENTION]])


@dataclass(frozen=True)
class Tracked:
    """A checkpoint and its run; without one the reason why there is none."""

    checkpoint: Checkpoint
    run: Run | None
    reason: str = ""


def track_table(tracked: Sequence[Tracked]) -> pd.DataFrame:
    """One row per checkpoint and layer, checkpoints in their order, layers in execution order; a
    checkpoint without a run is one row without a layer.
    """
    return typed([_rows(each) for each in tracked], TRACK)


def attention_table(tracked: Sequence[Tracked]) -> pd.DataFrame:
    """One row per checkpoint, layer and head; empty where no attention was read."""
    parts = [
        each.run.attention().assign(**_key(each.checkpoint))
        for each in tracked
        if each.run is not None and each.run.has(ATTENTION)
    ]
    return typed(parts, HEADS)


def table_files(table: pd.DataFrame, stem: str, schema: pa.Schema) -> Mapping[str, bytes]:
    """`stem`.parquet and `stem`.csv: name -> content."""
    arrow = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    arrow = arrow.replace_schema_metadata(None)
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    content = parquet_bytes(arrow, texts)
    return {f"{stem}.parquet": content.to_pybytes(), f"{stem}.csv": csv_bytes(table)}


def _key(checkpoint: Checkpoint) -> dict[str, str | int]:
    return {"checkpoint": checkpoint.name, "epoch": checkpoint.epoch}


def _rows(tracked: Tracked) -> pd.DataFrame:
    key = _key(tracked.checkpoint)
    if tracked.run is None:
        return pd.DataFrame([key | {"status": FAILED, "reason": tracked.reason}])
    alphas = tracked.run.alphas().merge(_ranges(tracked.run), how="left", on="layer")
    return alphas.assign(**key)


def _ranges(run: Run) -> pd.DataFrame:
    """layer, min_input, max_input over its channels; none where a layer saw nothing finite."""
    moments = run.moments()
    moments = moments[np.isfinite(moments["min_input"]) & np.isfinite(moments["max_input"])]
    spans = moments.groupby("layer", sort=False, observed=True, as_index=False)
    return spans.agg(min_input=("min_input", "min"), max_input=("max_input", "max"))


def typed(parts: Sequence[pd.DataFrame], schema: pa.Schema) -> pd.DataFrame:
    """All parts below each other, with the columns of the schema: None where one is missing."""
    columns = {
        field.name: [
            value
            for part in parts
            for value in (part[field.name] if field.name in part else [None] * len(part))
        ]
        for field in schema
    }
    return pd.DataFrame({field.name: _column(columns[field.name], field) for field in schema})


def _column(values: list[object], field: pa.Field) -> pd.Series:
    if pa.types.is_floating(field.type):
        return pd.Series(pd.to_numeric(pd.Series(values, dtype=object)), dtype=np.float64)
    missing = [None if pd.isna(value) else value for value in values]  # type: ignore[call-overload]
    if pa.types.is_integer(field.type):
        return pd.Series(missing, dtype="Int64")
    if pa.types.is_boolean(field.type):
        return pd.Series([bool(value) for value in missing])
    return pd.Series(missing, dtype=object)


__all__ = ["FAILED", "HEADS", "TRACK", "Tracked", "attention_table", "table_files", "track_table"]

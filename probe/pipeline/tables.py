"""From accumulators to the tables of a run: arrays in, columns out; no model, no I/O."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probe.records import TOKENS, Layer
from probe.stats.layer import LayerStatistics, SampledRows
from probe.store.schema import TABLES

Columns = dict[str, NDArray[Any]]


def moments_columns(
    layer: Layer, statistics: LayerStatistics, weight: NDArray[np.float64], bias: NDArray[np.float64]
) -> pd.DataFrame:
    """One row per channel. The output's moments are those of weight * normalized + bias, exact in float64."""
    moments = statistics.moments
    columns: dict[str, Any] = {"layer": layer.name, "channel": np.arange(layer.channels, dtype=np.int32), "count": moments.count}
    for side, spread in (("input", moments.input), ("output", moments.normalized.scaled(weight, bias))):
        columns |= {f"{name}_{side}": getattr(spread, name) for name in ("mean", "var", "min", "max")}
    columns |= {"weight": weight, "bias": bias, "slope": np.nan, "offset": np.nan}
    if layer.affine and statistics.line is not None:
        mean, scale = (values.astype(np.float64) for values in statistics.line)
        columns |= {"slope": scale, "offset": -mean * scale}
    return pd.DataFrame(columns)


def profile_columns(layer: Layer, statistics: LayerStatistics) -> pd.DataFrame:
    """One row per non-empty cell; without second moments for an affine layer, whose channels are lines."""
    kind, group, index, cells = statistics.profile.rows()
    if layer.affine:
        cells[:, 3:] = np.nan
    return pd.DataFrame(
        {
            "layer": layer.name,
            "tokens": np.array(TOKENS)[kind],
            "group": group.astype(np.int16),
            "bin": index.astype(np.int16),
            "count": cells[:, 0].astype(np.int64),
            "sum_input": cells[:, 1],
            "sum_normalized": cells[:, 2],
            "sum_normalized_sq": cells[:, 3],
            "sum_input_sq": cells[:, 4],
            "sum_product": cells[:, 5],
        }
    )


class Strata(TypedDict):
    """What RunWriter.write_samples takes."""

    uniform: Columns
    prefix: Columns | None
    tail: Columns


def sample_columns(statistics: LayerStatistics) -> Strata:
    """Uniform rows, prefix rows that the uniform draw did not take, and tail elements."""
    uniform, prefix = statistics.rows(statistics.uniform), statistics.rows(statistics.prefix)
    taken = set(zip(uniform.image.tolist(), uniform.position.tolist(), strict=True))
    places = zip(prefix.image.tolist(), prefix.position.tolist(), strict=True)
    new = np.array([place not in taken for place in places], dtype=bool)
    return {
        "uniform": _row_columns(uniform, slice(None)),
        "prefix": _row_columns(prefix, new) if new.any() else None,
        "tail": _tail_columns(statistics),
    }


def _tail_columns(statistics: LayerStatistics) -> Columns:
    tail = statistics.tail.elements()
    return {"input": tail["value"]} | {name: tail[name] for name in ("image", "position", "channel", "normalized", "output")}


def _row_columns(rows: SampledRows, chosen: slice | NDArray[np.bool_]) -> Columns:
    return {name: getattr(rows, name)[chosen] for name in ("image", "position", "input", "normalized", "output")}


def token_columns(layer: Layer, statistics: LayerStatistics) -> pd.DataFrame:
    """Mean and sigma of the sampled rows, uniform and prefix, sorted; no row for layers without token statistics."""
    parts = [rows for rows in map(statistics.rows, (statistics.uniform, statistics.prefix)) if rows.sigma is not None]
    if not parts:
        return empty("rows")
    columns = {name: np.concatenate([getattr(rows, name) for rows in parts]) for name in ("image", "position", "mean", "sigma")}
    frame = pd.DataFrame({"layer": layer.name, **columns}).drop_duplicates(["image", "position"])
    return frame.sort_values(["image", "position"], ignore_index=True)


def affine_error(statistics: LayerStatistics, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> float | None:
    """Largest |weight * normalized + bias - output| over the sampled rows, relative to max(1, largest |output|)."""
    rows = statistics.rows(statistics.uniform)
    if not rows.output.size or not np.isfinite(rows.output).any():
        return None
    error = np.abs(weight * rows.normalized + bias - rows.output)
    return float(np.nanmax(error) / max(1.0, np.nanmax(np.abs(rows.output))))


def empty(table: str) -> pd.DataFrame:
    """A table without rows."""
    return pd.DataFrame(columns=TABLES[table].names)

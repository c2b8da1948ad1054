"""From accumulators to the tables of a run: arrays in, columns out; no model, no I/O."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from probe.records import TOKENS, Layer
from probe.stats.layer import LayerStatistics, SampledRows
from probe.stats.sample_kernels import departure
from probe.stats.sums import CellSum
from probe.store.schema import TABLES

Columns = dict[str, NDArray[Any]]
PROFILE_SUMS = {
    "sum_input": CellSum.X,
    "sum_normalized": CellSum.Z,
    "sum_normalized_sq": CellSum.ZZ,
    "sum_input_sq": CellSum.XX,
    "sum_product": CellSum.XZ,
}


def moments_columns(
    layer: Layer,
    statistics: LayerStatistics,
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
) -> pa.Table:
    """One row per channel. The output's moments are those of weight * normalized + bias, exact in
    float64.
    """
    moments = statistics.moments
    columns: Columns = {
        "channel": np.arange(layer.channels, dtype=np.int32),
        "count": moments.count,
    }
    spreads = {"input": moments.input, "output": moments.normalized.scaled(weight, bias)}
    for side, spread in spreads.items():
        columns |= {
            f"{name}_{side}": getattr(spread, name) for name in ("mean", "var", "min", "max")
        }
    nothing = np.full(layer.channels, np.nan)
    columns |= {"weight": weight, "bias": bias, "slope": nothing, "offset": nothing}
    if layer.affine and statistics.line is not None:
        mean, scale = (values.astype(np.float64) for values in statistics.line)
        columns |= {"slope": scale, "offset": -mean * scale}
    return _table(layer, columns)


def profile_columns(layer: Layer, statistics: LayerStatistics) -> pa.Table | None:
    """One row per non-empty cell; None for an affine layer, whose channels are lines."""
    if layer.affine:
        return None
    kind, group, index, cells = statistics.profile.rows()
    tokens = pa.DictionaryArray.from_arrays(kind.astype(np.int8), pa.array(TOKENS))
    columns = {
        "tokens": tokens.cast(pa.string()),
        "group": group,
        "bin": index,
        "count": cells[:, CellSum.COUNT].astype(np.int64),
    }
    return _table(layer, columns | {name: cells[:, at] for name, at in PROFILE_SUMS.items()})


class SampleColumns(TypedDict):
    """What RunWriter.write_samples takes."""

    uniform: Columns
    prefix: Columns | None
    tail: Columns


def sample_columns(statistics: LayerStatistics) -> SampleColumns:
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
    return {"input": tail["value"]} | {
        name: tail[name] for name in ("image", "position", "channel", "normalized", "output")
    }


def _row_columns(rows: SampledRows, chosen: slice | NDArray[np.bool_]) -> Columns:
    return {
        name: getattr(rows, name)[chosen]
        for name in ("image", "position", "input", "normalized", "output")
    }


def token_columns(layer: Layer, statistics: LayerStatistics) -> pa.Table | None:
    """Mean and sigma of the sampled rows, uniform and prefix, sorted; None for layers without token
    statistics.
    """
    parts = [
        rows
        for rows in map(statistics.rows, (statistics.uniform, statistics.prefix))
        if rows.sigma is not None
    ]
    if not parts:
        return None
    columns = {
        name: np.concatenate([getattr(rows, name) for rows in parts])
        for name in ("image", "position", "mean", "sigma")
    }
    places = np.stack([columns["image"], columns["position"]])
    _, first = np.unique(places, axis=1, return_index=True)
    return _table(layer, {name: values[first] for name, values in columns.items()})


def affine_error(
    rows: Columns, weight: NDArray[np.float64], bias: NDArray[np.float64]
) -> float | None:
    """Largest |weight * normalized + bias - output| over the sampled rows, relative to max(1,
    largest |output|).
    """
    error, largest = departure(rows["normalized"], rows["output"], weight, bias)
    if largest < 0:
        return None
    with np.errstate(invalid="ignore"):  # infinities of a model that overflows
        return float(np.divide(error if error >= 0 else np.nan, np.fmax(1.0, largest)))


def attention_columns(rows: list[dict[str, Any]]) -> pa.Table:
    """What an attention probe read, one row per layer and head; a number that is not known is
    null.
    """
    columns = {
        field.name: ([row[field.name] for row in rows], field.type) for field in TABLES["attention"]
    }
    return pa.table(
        {name: pa.array(values, kind, from_pandas=True) for name, (values, kind) in columns.items()}
    )


def _table(layer: Layer, columns: dict[str, Any]) -> pa.Table:
    rows = len(next(iter(columns.values())))
    return pa.table({"layer": pa.repeat(layer.name, rows), **columns})

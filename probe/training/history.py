"""What a training leaves of each epoch: a table of epochs, and a long one of the normalizers' own
parameters beside the spread of their inputs.

epochs: epoch (0: before training), step (updates so far), learning_rate (of the last update),
train_loss (mean over images, as it was trained: mixed and smoothed), val_loss, top1, top5 (per
cent), seconds and eval_seconds, images_per_second of the training part.

norms: epoch, layer, depth, kind, quantity, index, value; see probe.training.norm_values. They are
those of the evaluated weights: the averaged ones where there are some.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from probe.formatting import csv_bytes, records

EPOCHS = {
    "epoch": "int64",
    "step": "int64",
    "learning_rate": "float64",
    "train_loss": "float64",
    "val_loss": "float64",
    "top1": "float64",
    "top5": "float64",
    "seconds": "float64",
    "eval_seconds": "float64",
    "images_per_second": "float64",
}
NORMS = {
    "epoch": "int64",
    "layer": "str",
    "depth": "int64",
    "kind": "str",
    "quantity": "str",
    "index": "int64",
    "value": "float64",
}
Row = Mapping[str, Any]


def epoch_table(rows: Sequence[Row]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(EPOCHS)).astype(EPOCHS)


def norm_table(rows: Sequence[Row]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(NORMS)).astype(NORMS)


def parquet_bytes(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def read_tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of both tables of a training. Raises OSError, ValueError."""
    names = ("epochs", "norms")
    return {name: records(pd.read_parquet(folder / f"{name}.parquet")) for name in names}


def table_files(epochs: Sequence[Row], norms: Sequence[Row]) -> dict[str, bytes]:
    """Both tables as Parquet and as CSV, by file name."""
    return files_of({"epochs": epoch_table(epochs), "norms": norm_table(norms)})


def files_of(tables: Mapping[str, pd.DataFrame]) -> dict[str, bytes]:
    """Tables as Parquet and as CSV, by file name."""
    parquet = {f"{name}.parquet": parquet_bytes(table) for name, table in tables.items()}
    return parquet | {f"{name}.csv": csv_bytes(table) for name, table in tables.items()}

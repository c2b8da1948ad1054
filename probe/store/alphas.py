"""The exported alphas: one row per layer as CSV and JSON, and ready-made weights as safetensors.
Same content, same bytes.

safetensors format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy
from numpy.typing import NDArray

from probe.formatting import csv_bytes, from_csv_cell, json_bytes
from probe.store.outputs import output_file
from probe.store.results import put, result_bytes
from probe.store.schema import ALPHA_STRINGS, ALPHAS


def write_alphas(frame: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Writes the table to a `.csv` (empty where null) or `.json` file (a list of objects, null
    where null).

    Columns of schema.ALPHAS come first. Raises ValueError where one is missing, UsageError for
    another ending.
    """
    file = output_file(path, "alpha.csv", endings=(".csv", ".json"), option="alphas")
    return put(file, alpha_bytes(frame, file.suffix))


def alpha_bytes(frame: pd.DataFrame, ending: str) -> bytes:
    """The content of a file of alphas that ends in `.csv` or `.json`. Raises ValueError where a
    column of schema.ALPHAS is missing.
    """
    missing = [name for name in ALPHAS if name not in frame.columns]
    if missing:
        raise ValueError(f"the alpha table lacks the columns {', '.join(missing)}")
    frame = frame[[*ALPHAS, *(name for name in frame.columns if name not in ALPHAS)]]
    if ending == ".csv":
        return csv_bytes(frame)
    return json_bytes(frame.astype(object).where(frame.notna(), None).to_dict("records"))


def read_alphas(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Reads what `write_alphas` wrote as .csv: every number to its last bit, and a layer called
    `null` under its name.

    Raises ValueError for a file of another kind, ProbeError for a damaged one of a run.
    """
    return parse_alphas(result_bytes(path))


def parse_alphas(data: bytes) -> pd.DataFrame:
    """The table in the content of a `.csv` file of alphas. Raises ValueError."""
    names, *rows = csv.reader(io.StringIO(data.decode("utf-8"), newline=""))
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return pd.DataFrame(
        {
            name: pd.Series(
                list(map(from_csv_cell, column))
                if name in ALPHA_STRINGS
                else [_value(text) for text in column]
            )
            for name, column in zip(names, columns, strict=True)
        }
    )


def _value(text: str) -> float | bool:
    if text in ("True", "False"):
        return text == "True"
    if text.lstrip("-").isdigit():
        return int(text)
    return float(text) if text else float("nan")


def write_state(
    arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any], path: str | os.PathLike[str]
) -> Path:
    """Writes named arrays as `state_bytes` says them."""
    return put(path, state_bytes(arrays, metadata))


def state_bytes(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> bytes:
    """Named arrays (`<layer>.alpha`, `.weight`, `.bias`) as safetensors. Metadata that is no string
    is written as JSON.
    """
    texts = {
        key: value if isinstance(value, str) else json_bytes(value).decode().strip()
        for key, value in metadata.items()
    }
    tensors = {
        name: np.ascontiguousarray(arrays[name]).reshape(np.shape(arrays[name]))
        for name in sorted(arrays)
    }
    return sorted_header(safetensors.numpy.save(tensors, metadata=texts))


def sorted_header(data: bytes) -> bytes:
    """The library writes the metadata in random order.

    Layout: length of the header in 8 bytes (little-endian), header as JSON padded with spaces to a
    multiple of 8, data.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(
        json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


__all__ = [
    "alpha_bytes",
    "parse_alphas",
    "read_alphas",
    "sorted_header",
    "state_bytes",
    "write_alphas",
    "write_state",
]

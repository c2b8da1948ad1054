"""Stand-ins from what `export` writes: a table of alphas (.csv, .json) or a .safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors

from probe.curves import Affine, StandIn
from probe.errors import UsageError, first_line
from probe.jobs.replacing.stand_ins import (
    ALPHA_FAMILY,
    NOT_WANTED,
    WITHOUT_MAP,
    Affines,
    StandIns,
    check_channels,
)
from probe.records import Status
from probe.store import read_alphas
from probe.store.results import result_bytes

TABLES = (".csv", ".json")
# Names of the curves in `stand_in` of a .safetensors file -> families. The file is written with
# `tanh` and `line`, other programs may hold derfs too; every other name is a family.
FAMILY_IN_FILE = {"line": "linear", "erf": "erf_shift"}


def read_table(path: Path) -> pd.DataFrame:
    """A table of alphas as export writes it (.csv, .json). Raises UsageError for a file that holds
    no table.
    """
    try:
        if path.suffix == ".csv":
            return read_alphas(path)
        return pd.DataFrame(json.loads(result_bytes(path))).replace({None: np.nan})
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(
            f"alphas {str(path)!r} cannot be read as a table ({first_line(error)})"
        ) from error


def table_stand_ins(table: pd.DataFrame, affines: Affines) -> StandIns:
    """The stand-ins of scope `layer` that a table of alphas gives to the layers of `affines`.

    The table needs the columns layer, alpha, gamma, beta; slope and max_abs_input for layers
    without alpha.
    """
    _check_table(table)
    stand_ins: dict[str, StandIn] = {}
    left_out: dict[str, str] = {}
    for row in table.to_dict("records"):
        layer = row["layer"]
        if layer not in affines:
            left_out[layer] = NOT_WANTED
            continue
        if pd.notna(channels := row.get("channels")):
            check_channels(layer, len(affines[layer][0]), int(channels))
        stand_in = _row_stand_in(row, affines[layer])
        if isinstance(stand_in, str):
            left_out[layer] = stand_in
        else:
            stand_ins[layer] = stand_in
    return stand_ins, left_out


def _check_table(table: pd.DataFrame) -> None:
    needed = ("layer", "alpha", "gamma", "beta")
    if missing := [name for name in needed if name not in table.columns]:
        raise UsageError(
            f"the table of alphas has no column {', '.join(missing)}; give what export or "
            "run.alphas() makes"
        )
    if table["layer"].duplicated().any():
        raise UsageError(
            "the table of alphas has several rows of one layer; give what export or run.alphas() "
            "makes"
        )


def _row_stand_in(row: Mapping[str, Any], affine: Affine) -> StandIn | str:
    """The curve or line of one row, or why it gives none."""
    layer = row["layer"]
    if pd.notna(row["alpha"]):
        curve = {name: row[name] for name in ("alpha", "gamma", "beta")}
        return StandIn.of_fit(layer, ALPHA_FAMILY, affine=affine, **curve)
    status = row.get("status", "no alpha")
    if status == Status.AFFINE:
        return "affine: a table holds no line per channel; give the run or its .safetensors"
    if status in WITHOUT_MAP:
        return str(status)
    slope, max_abs = (row.get(name, np.nan) for name in ("slope", "max_abs_input"))
    line = StandIn.of_line(layer, slope=slope, offset=row["beta"], max_abs=max_abs, affine=affine)
    return line or f"{status}: the row has no slope, beta or max_abs_input for its line"


def file_stand_ins(path: str | os.PathLike[str]) -> StandIns:
    """The stand-ins of an exported .safetensors file: `<layer>.alpha .weight .bias`, and `.shift`
    where the curve has one.
    """
    arrays, metadata = _read_safetensors(path)
    families, left_out = (json.loads(metadata.get(key, "{}")) for key in ("stand_in", "left_out"))
    layers = [name.removesuffix(".alpha") for name in arrays if name.endswith(".alpha")]
    parts = [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]
    if not layers or any(name not in arrays for name in parts):
        raise UsageError(
            f"alphas {os.fspath(path)!r} holds no <layer>.alpha .weight .bias; give what export "
            "makes"
        )
    stand_ins = {}
    for layer in layers:
        name = families.get(layer, ALPHA_FAMILY)
        stand_ins[layer] = StandIn(
            layer,
            FAMILY_IN_FILE.get(name, name),
            alpha=_scalar(arrays.get(f"{layer}.alpha")),
            shift=_scalar(arrays.get(f"{layer}.shift")),
            weight=arrays[f"{layer}.weight"],
            bias=arrays[f"{layer}.bias"],
        )
    return stand_ins, left_out


def _read_safetensors(
    path: str | os.PathLike[str],
) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    """The tensors as float64, and the metadata."""
    try:
        result_bytes(path)  # raises where a run's list says otherwise
        with safetensors.safe_open(path, "np") as file:
            names = file.keys()
            arrays = {name: file.get_tensor(name).astype(np.float64) for name in names}
            return arrays, file.metadata() or {}
    except (OSError, TypeError, safetensors.SafetensorError) as error:
        raise UsageError(
            f"alphas {os.fspath(path)!r} cannot be read ({first_line(error)})"
        ) from error


def _scalar(array: np.ndarray | None) -> float:
    """The first entry; 0 where the file has none."""
    return 0.0 if array is None else float(array.reshape(-1)[0])

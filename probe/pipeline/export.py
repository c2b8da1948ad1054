"""Export the fitted alphas: as a table, or as ready-made weights of the DyT that stands in for each layer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probe.errors import UsageError, unknown
from probe.pipeline.fit_run import by_layer, fit
from probe.pipeline.fit_tables import largest_input
from probe.store import Run, open_run, write_alphas, write_state

LINE_REACH = 0.05  # alpha * max|input| of a line written as a tanh: it deviates from the line by at most 0.1 %


def export_alphas(run: Run | str, path: str | os.PathLike[str], scope: str = "channel") -> Path:
    """Write the alphas of a run to `path`: .csv or .json (one row per layer), or .safetensors (`<layer>.alpha .weight .bias`).

    Fits first if nothing is fitted yet. scope, for safetensors: `channel` (one gamma and beta per channel) or `layer` (one of
    each). Raises UsageError for another scope or ending.
    """
    run = open_run(run)
    path = Path(path)
    if scope not in ("channel", "layer"):
        raise unknown("--scope", scope, ("channel", "layer"))
    if path.suffix not in (".csv", ".json", ".safetensors"):
        raise UsageError(f"--to {str(path)!r}: accepted: a file ending in .csv, .json or .safetensors")
    if not (run.path / "fits.parquet").exists():
        fit(run)
    if path.suffix != ".safetensors":
        return write_alphas(run.alphas(), path)
    arrays, metadata = stand_ins(run, scope)
    return write_state(arrays, metadata, path)


def stand_ins(run: Run, scope: str = "channel") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """alpha (1,), weight (C,), bias (C,) float32 of a DyT in place of each layer, and what the file's metadata says.

    DyT(x) = w gamma tanh(alpha x) + (w beta + b) with the layer's own affine w, b. A layer without alpha is written as its
    line, a tanh that stays within its straight part. Constant, too small, not finite and never called layers are left out and
    listed.
    """
    arrays: dict[str, np.ndarray] = {}
    forms: dict[str, str] = {}
    left_out: dict[str, str] = {}
    channel_fits, moments = by_layer(run.channel_fits()), by_layer(run.moments())
    for row in run.alphas().to_dict("records"):
        name, status = row["layer"], row["status"]
        if name not in moments or status in ("constant", "too_few", "not_finite", "not_called"):
            left_out[name] = status
            continue
        stand_in = _stand_in(row, moments[name], channel_fits[name], scope)
        if stand_in is None:
            left_out[name] = "no slope"
            continue
        forms[name], alpha, gain, offset = stand_in
        weight, bias = (moments[name][column].to_numpy() for column in ("weight", "bias"))
        arrays[f"{name}.alpha"] = np.array([alpha], dtype=np.float32)
        arrays[f"{name}.weight"] = (weight * gain).astype(np.float32)
        arrays[f"{name}.bias"] = (weight * offset + bias).astype(np.float32)
    model = run.manifest["model"]
    metadata = {"format": "probe-dyt", "scope": scope, "stand_in": forms, "left_out": left_out}
    return arrays, metadata | {"model": model.get("name")} | {key: model.get(key) for key in ("weights", "fingerprint")}


def _stand_in(
    row: dict[str, Any], moments: pd.DataFrame, channels: pd.DataFrame, scope: str
) -> tuple[str, float, Any, Any] | None:
    """Form (`tanh`, `line`), alpha, and per channel or layer what multiplies tanh(alpha x) and what is added to it."""
    if scope == "channel" and pd.notna(row["alpha_channel"]):
        return "tanh", row["alpha_channel"], channels["gamma"].to_numpy(), channels["beta"].to_numpy()
    if scope == "layer" and pd.notna(row["alpha"]):
        return "tanh", row["alpha"], row["gamma"], row["beta"]
    slope, offset = row["slope"], row["beta"]
    if scope == "channel" or row["status"] == "affine":
        slope, offset = channels["slope"].to_numpy(), channels["offset"].to_numpy()
    largest = float(largest_input(moments).max())
    if not largest > 0 or not np.isfinite(slope).all() or not np.isfinite(offset).all():
        return None
    alpha = LINE_REACH / largest
    return "line", alpha, slope / alpha, offset

"""Export the fitted alphas: as a table, or as ready-made weights of the DyT that stands in for each
layer.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from probe.curves import StandIn
from probe.errors import unknown
from probe.jobs.fitting.fit import ensure_fitted
from probe.jobs.replacing.stand_ins import SCOPES, run_stand_ins
from probe.store import Run
from probe.store.alphas import alpha_bytes, state_bytes
from probe.store.outputs import output_file
from probe.store.results import step_into
from probe.wording.notes import table_metadata

ENDINGS = (".csv", ".json", ".safetensors")


# Which column of the alpha table the numbers of a file are.
ALPHA_IS = {"channel": "alpha_channel", "layer": "alpha"}


def export_alphas(run: Run | str, path: str | os.PathLike[str], scope: str = "channel") -> Path:
    """Write the alphas of a run to `path`: .csv or .json (one row per layer), or .safetensors
    (`<layer>.alpha .weight .bias`).

    Fits first if nothing is fitted yet. scope, for safetensors: `channel` (one gamma and beta per
    channel) or `layer` (one of each). Raises UsageError for another scope or ending.
    """
    if scope not in SCOPES:
        raise unknown("--scope", scope, SCOPES)
    path = output_file(path, "alpha.csv", endings=ENDINGS, option="--to")
    run = ensure_fitted(run)
    with step_into(path, [run.path], "give another --to FILE") as step:
        if path.suffix != ".safetensors":
            return step.put(path, alpha_bytes(run.alphas(), path.suffix))
        return step.put(path, state_bytes(*dyt_state(run, scope)))


def dyt_state(run: Run, scope: str = "channel") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """alpha (1,), weight (C,), bias (C,) float32 of a DyT in place of each layer, and what the
    file's metadata says.

    A layer without alpha is written as its line, a tanh that stays within its straight part.
    Constant, too small, not finite and never called layers are left out and listed, and those
    whose values are no float32.
    """
    stand_ins, left_out = run_stand_ins(run, scope, "tanh")
    arrays: dict[str, np.ndarray] = {}
    names: dict[str, str] = {}
    for layer, stand_in in stand_ins.items():
        of_layer = _float32(stand_in.as_family("tanh"))
        if not all(np.isfinite(values).all() for values in of_layer.values()):
            left_out[layer] = "beyond float32"
            continue
        arrays |= {f"{layer}.{name}": values for name, values in of_layer.items()}
        names[layer] = "line" if stand_in.is_line else "tanh"
    model = run.manifest.get("model") or {}
    metadata = {
        "format": "probe-dyt",
        "scope": scope,
        "alpha": ALPHA_IS[scope],
        "stand_in": names,
        "left_out": left_out,
    }
    origin = {key: model.get(key) for key in ("weights", "fingerprint")}
    origin |= table_metadata(run.manifest)
    return arrays, metadata | {"model": model.get("name")} | origin


def _float32(tanh: StandIn) -> dict[str, np.ndarray]:
    """alpha (1,), weight (C,) and bias (C,); infinite where they are too large."""
    with np.errstate(over="ignore"):
        return {
            "alpha": np.array([tanh.alpha], dtype=np.float32),
            "weight": tanh.weight.astype(np.float32),
            "bias": tanh.bias.astype(np.float32),
        }

"""Runs on disk made of small tables, without any model: for the jobs that start from a finished
run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probe.store.alphas import write_alphas
from probe.store.run import Run, open_run
from probe.store.schema import ALPHAS, TABLES
from probe.store.writer import RunWriter
from support import (
    attention_data,  # noqa: F401  for the tests
    figure_data,
)

IMAGES = [f"image{i}" for i in range(16)]


def store(
    out: Path,
    tables: figure_data.Tables,
    weights: str = "pretrained",
    name: str = "vit_tiny",
    fitted: bool = True,
    heads: pd.DataFrame | None = None,
) -> Run:
    """Writes `tables` as a finished run; `fitted`: with fits and alphas; `heads`: the attention
    table.
    """
    with RunWriter(out) as writer:
        for layer in tables.layers:
            own = tables.samples[tables.samples["layer"] == layer["layer"]]
            if not own.empty:
                writer.write_samples(layer["depth"], layer["layer"], **_columns(own))
        for kind in ("moments", "rows", "profile"):
            writer.write_table(kind, _filled(getattr(tables, kind, pd.DataFrame()), kind))
        if heads is not None:
            writer.write_table("attention", heads)
        model = {"name": name, "weights": weights, "prefix_tokens": 1}
        writer.finish({"model": model, "data": {"images": IMAGES}, "layers": tables.layers})
    run = open_run(out)
    if fitted:
        run.save_table("fits", _filled(tables.fits, "fits"))
        run.save_table("channel_fits", _filled(pd.DataFrame(), "channel_fits"))
        write_alphas(tables.alphas.reindex(columns=[*ALPHAS]), run.path / "alpha.csv")
    return run


def store_attention(
    out: Path,
    heads: pd.DataFrame,
    weights: str = "pretrained",
    name: str = "timm:vit_tiny",
    **record: Any,
) -> Run:
    """Writes a run whose only job was attention; `record`: more of the manifest's entry
    `attention`.
    """
    with RunWriter(out) as writer:
        writer.write_table("attention", heads)
        model = {"name": name, "origin": "timm", "weights": weights}
        attention = {"status": "captured", "unreadable": {}, **record}
        writer.finish(
            {
                "job": "attention",
                "model": model,
                "data": {"images": IMAGES},
                "layers": [],
                "attention": attention,
            }
        )
    return open_run(out)


def _columns(samples: pd.DataFrame) -> dict[str, Any]:
    """Samples by stratum, in the shapes that the writer takes."""
    parts: dict[str, Any] = {}
    for stratum in ("uniform", "prefix"):
        part = samples[samples["stratum"] == stratum].sort_values(
            ["channel", "image", "position"], kind="stable"
        )
        first = part[part["channel"] == 0]
        values = {
            name: part[name].to_numpy().reshape(figure_data.CHANNELS, -1).T
            for name in ("input", "normalized", "output")
        }
        parts[stratum] = {
            "image": first["image"].to_numpy(),
            "position": first["position"].to_numpy(),
            **values,
        }
    tail = samples[samples["stratum"] == "tail"]
    parts["tail"] = {
        name: tail[name].to_numpy()
        for name in ("image", "position", "channel", "input", "normalized", "output")
    }
    return parts


def _filled(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """With every column of the schema; what the figures do not read is null or zero."""
    frame = table.reindex(columns=TABLES[kind].names)
    for field in TABLES[kind]:
        if str(field.type).startswith("int"):
            frame[field.name] = pd.to_numeric(frame[field.name]).fillna(0).astype(np.int64)
        elif str(field.type) == "bool":
            frame[field.name] = frame[field.name].eq(True)
        elif str(field.type) == "double":
            frame[field.name] = pd.to_numeric(frame[field.name]).astype(np.float64)
    return frame

"""Sets finished runs side by side: one row of key numbers per run, and one figure.

What it is for: a ViT's LayerNorms beside a ResNet's BatchNorms. A line per channel explains
BatchNorm exactly (R2 1) and LayerNorm not, because there each token has its own slope.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from probe.formatting import csv_bytes
from probe.jobs.drawing.tables import FigureTables, NothingToDraw, frame_of, images, network
from probe.jobs.figure_file import save
from probe.jobs.fitting.fit import image_groups, uniform_rows
from probe.plots.compare import Side, compare_grid
from probe.plots.layout import Frame
from probe.plots.lines import r2_by_scope
from probe.records import Status, main_fits
from probe.store.outputs import output_folder
from probe.store.run import Run, open_run, run_names
from probe.store.step import Step


def compare(
    run_a: Run | str | Path, run_b: Run | str | Path, out: str | Path | None = None
) -> pd.DataFrame:
    """One row per run, see `key_numbers`. With `out`: writes compare.csv and the figures compare
    and r2_by_scope into that folder.

    Both runs must be fitted and exported (UsageError says how otherwise).
    """
    runs = [open_run(run_a), open_run(run_b)]
    if out is None:
        return _compared(runs)
    folder = output_folder(out)
    with Step(folder, [run.path for run in runs]) as step:
        table = _compared(runs)
        step.put(folder / "compare.csv", csv_bytes(table))
        figure = compare_figure(*runs)
        if figure is not None:
            save(figure, folder / "compare", step.put)
        save(scope_figure(*runs), folder / "r2_by_scope", step.put)
    return table


def _compared(runs: Sequence[Run]) -> pd.DataFrame:
    named = zip(run_names(runs), runs, strict=True)
    return pd.DataFrame([{"run": name} | key_numbers(run) for name, run in named])


def key_numbers(run: Run) -> dict[str, Any]:
    """What tells one run from another; medians are over layers, null where no layer has the number.

    r2_line, r2_tanh: scope `layer`, one curve for all channels; r2_line_per_channel: scope
    `channel`, a line of its own for each, over the sampled rows.
    """
    alphas, fits = run.alphas(), run.fits()
    status = alphas["status"].astype(str)
    model: dict[str, Any] = run.manifest.get("model") or {}
    shown = (Status.CURVED, Status.LINEAR, Status.UNDETERMINED, Status.AFFINE)
    counted = {name.value: int((status == name).sum()) for name in shown}
    return {
        "model": str(model.get("name", "")),
        "weights": str(model.get("weights", "")),
        "layers": len(alphas),
        "kinds": kinds(run),
        **counted,
        "other": len(alphas) - sum(counted.values()),
        "median_alpha": _median(alphas, "alpha"),
        "median_r2_line": _median(alphas, "linear_r2"),
        "median_r2_tanh": _median(alphas[status != Status.AFFINE], "r2"),
        "median_r2_line_per_channel": _median(
            main_fits(fits, family="linear", scope="channel"), "r2"
        ),
        "median_beyond_linear": _median(alphas, "beyond_linear"),
        "median_saturation": _median(alphas, "saturation"),
        "max_abs_input": _number(pd.to_numeric(alphas["max_abs_input"]).max()),
    }


def kinds(run: Run) -> str:
    """Kinds of layers with their numbers, the most frequent first: `layer_norm 25`."""
    counts = run.layers["kind"].value_counts()
    return ", ".join(
        f"{kind} {count}"
        for kind, count in counts.sort_index().sort_values(ascending=False, kind="stable").items()
    )


def compare_figure(*runs: Run) -> Figure | None:
    """Four layers of each run at equal steps of depth, one row per run; None if no run has
    samples.
    """
    sides = []
    for run in runs:
        tables = FigureTables(run)
        try:
            layers = tables.selected
        except NothingToDraw:
            continue
        title = f"{network(run)}: {kinds(run)}"
        sides.append(Side(title, layers, tables.thin(layers), tables.fits, tables.fan))
    return compare_grid(sides, frame=joint_frame(runs)) if sides else None


def scope_figure(*runs: Run) -> Figure:
    """R2 of one line for all channels beside that of a line per channel, along depth: where
    BatchNorm and LayerNorm part.
    """
    sides = {f"{i}. {network(run)}": scope_r2(run) for i, run in enumerate(runs, start=1)}
    return r2_by_scope(sides, frame=joint_frame(runs))


def joint_frame(runs: Sequence[Run]) -> Frame:
    """The images of all runs, said once where they are as many, and every warning by its run."""
    warnings = [
        f"{name}: {warning}"
        for name, run in zip(run_names(runs), runs, strict=True)
        if (warning := frame_of(run).warning)
    ]
    return Frame("; ".join(dict.fromkeys(map(images, runs))), ", ".join(warnings))


def scope_r2(run: Run) -> pd.DataFrame:
    """layer, depth, layer_r2 (one line for all channels), channel_r2 (a line per channel), null
    where a layer has none.

    Both are of the same elements, those of the uniform sample rows: a line for each channel never
    explains less than one for all.
    """
    groups = image_groups(run)
    per_channel = main_fits(run.fits(), family="linear", scope="channel")
    table = run.layers[["layer", "depth"]].merge(
        per_channel[["layer", "r2"]].rename(columns={"r2": "channel_r2"}), how="left", on="layer"
    )
    pooled = [
        pooled_r2(*uniform_rows(run, layer, groups)[:2]) if known else math.nan
        for layer, known in zip(table["layer"], table["channel_r2"].notna(), strict=True)
    ]
    table = table.assign(layer_r2=pooled)[["layer", "depth", "layer_r2", "channel_r2"]]
    return table.sort_values("depth", kind="stable", ignore_index=True)


def pooled_r2(x: NDArray[np.float32], z: NDArray[np.float32]) -> float:
    """R2 of one line through all elements of x, z (N, C): their squared correlation."""
    dx, dz = (each.astype(np.float64) - each.mean(dtype=np.float64) for each in (x, z))
    total = float((dx * dx).sum() * (dz * dz).sum())
    return float((dx * dz).sum()) ** 2 / total if total > 0 else math.nan


def _median(table: pd.DataFrame, column: str) -> float | None:
    values = pd.to_numeric(table[column]).dropna().to_numpy(np.float64)
    return _number(np.median(values)) if values.size else None


def _number(value: Any) -> float | None:
    return float(value) if pd.notna(value) else None

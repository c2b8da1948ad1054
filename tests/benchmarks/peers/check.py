"""Which layers a tool got right, input and output: moments of every channel and every sampled
element, against the truth of `peers.reference`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from peers.outcome import SIDES
from peers.reference import TRUTH

# of a standard deviation. What float32 and the order of sums do is under a hundredth of this; what
# an overwritten output is off by is about one.
TOLERANCE = 1e-3


def right_layers(work: Path, out: Path) -> dict[str, int]:
    """Layers, and how many of their inputs and outputs are right."""
    folder = out / "run" if (out / "run").is_dir() else out
    moments = dict(list(pd.read_parquet(folder / "moments.parquet").groupby("layer")))
    samples = samples_of(folder)
    truths = [np.load(path) for path in sorted((work / TRUTH).glob("*.npz"))]
    right = {"layers": len(truths)} | dict.fromkeys(SIDES, 0)
    for truth in truths:
        layer = str(truth["layer"])
        for side in SIDES:
            right[side] += moments_agree(truth, moments.get(layer), side) and samples_agree(
                truth, samples.get(layer), side
            )
    return right


def samples_of(folder: Path) -> dict[str, pd.DataFrame]:
    """Layer -> elements of its uniform rows, by row and channel."""
    path = folder / "samples"
    frame = pd.read_parquet(path if path.is_dir() else f"{path}.parquet")
    if "stratum" in frame:
        frame = frame[frame["stratum"] == "uniform"]
    return dict(list(frame.groupby("layer", observed=True)))


def moments_agree(truth: dict[str, NDArray], frame: pd.DataFrame | None, side: str) -> bool:
    if frame is None or f"mean_{side}" not in frame:
        return False
    frame = frame.sort_values("channel")
    mean, variance = truth[f"mean_{side}"], truth[f"var_{side}"]
    if len(frame) != len(mean):
        return False
    deviation = np.sqrt(variance + 1e-6 * variance.mean())
    off_mean = np.abs(frame[f"mean_{side}"] - mean) / deviation
    off_variance = np.abs(frame[f"var_{side}"] - variance) / deviation**2
    return bool((off_mean <= TOLERANCE).all() and (off_variance <= TOLERANCE).all())


def samples_agree(truth: dict[str, NDArray], frame: pd.DataFrame | None, side: str) -> bool:
    values = truth[side]
    if frame is None or side not in frame or len(frame) != values.size:
        return False
    frame = frame.sort_values(["image", "position", "channel"])
    where = frame[["image", "position"]].to_numpy()[:: values.shape[1]]
    off = np.abs(frame[side].to_numpy().reshape(values.shape) - values)
    return bool((where == truth["rows"]).all() and (off <= TOLERANCE * values.std()).all())

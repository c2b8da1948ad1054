"""What every tool has to leave on disk, as it is written for the tools that only hand out tensors:
mean and variance of every channel, and the elements of the same rows of every layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

SIDES = ("input", "output")
# positions of a layer -> (rows, 2): image and position of each row to keep, sorted by image
Rows = Mapping[int, NDArray[np.int64]]


def as_rows(x: Tensor) -> Tensor:
    """(B, C, H, W) or (B, T, C) as (B, positions, C), without a copy."""
    return x.flatten(2).movedim(1, -1) if x.ndim == 4 else x


def batch_moments(x: Tensor) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Count, mean (C,) and variance (C,) of one batch, by the one call that torch has for both."""
    over = (0, 2, 3) if x.ndim == 4 else (0, 1)
    variance, mean = torch.var_mean(x, over, correction=0)
    return x.numel() // len(mean), mean.double().numpy(), variance.double().numpy()


class Moments:
    """Running mean and variance per channel in float64 (Chan, Golub, LeVeque 1983)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(1), np.zeros(1)

    def add(self, count: int, mean: NDArray[np.float64], variance: NDArray[np.float64]) -> None:
        total = self.count + count
        delta = mean - self.mean
        self.squares = self.squares + variance * count + delta**2 * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    @property
    def variance(self) -> NDArray[np.float64]:
        return self.squares / self.count


class Outcome:
    """Collects batches; `write` leaves moments.parquet and samples.parquet in a folder.

    outcome = Outcome(rows)
    outcome.add("norm", "input", 0, x)  # images 0 to B - 1
    outcome.write(folder)
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.moments: dict[tuple[str, str], Moments] = {}
        self._samples: dict[tuple[str, str], list[NDArray[np.float32]]] = {}
        self._positions: dict[str, int] = {}

    def add(self, layer: str, side: str, first: int, x: Tensor) -> None:
        """One batch of a layer whose first image is number `first`; nothing of `x` is kept."""
        self.add_moments(layer, side, *batch_moments(x))
        self.add_rows(layer, side, first, x)

    def add_moments(
        self,
        layer: str,
        side: str,
        count: int,
        mean: NDArray[np.float64],
        variance: NDArray[np.float64],
    ) -> None:
        self.moments.setdefault((layer, side), Moments()).add(count, mean, variance)

    def add_rows(self, layer: str, side: str, first: int, x: Tensor) -> None:
        rows = as_rows(x)
        self._positions[layer] = rows.shape[1]
        image, position = self._rows[rows.shape[1]].T
        here = (image >= first) & (image < first + len(rows))
        chosen = rows[image[here] - first, position[here]]
        self._samples.setdefault((layer, side), []).append(chosen.numpy())

    def write(self, folder: Path) -> None:
        layers = list(dict.fromkeys(layer for layer, _ in self.moments))
        moments = pd.concat([self._moments_of(layer) for layer in layers])
        moments.to_parquet(folder / "moments.parquet", compression="zstd")
        writer: pq.ParquetWriter | None = None
        for layer in layers:
            table = pa.table(self._samples_of(layer))
            writer = writer or pq.ParquetWriter(
                folder / "samples.parquet", table.schema, compression="zstd"
            )
            writer.write_table(table)
        if writer is not None:
            writer.close()

    def _moments_of(self, layer: str) -> pd.DataFrame:
        columns: dict[str, Any] = {"layer": layer}
        for side in SIDES:
            if (layer, side) in self.moments:
                moments = self.moments[layer, side]
                columns |= {f"mean_{side}": moments.mean, f"var_{side}": moments.variance}
        return pd.DataFrame(columns).rename_axis("channel").reset_index()

    def _samples_of(self, layer: str) -> dict[str, Any]:
        """Batches come in the order of the images, and so do the rows that were handed in."""
        values = {
            side: np.concatenate(self._samples[layer, side])
            for side in SIDES
            if (layer, side) in self._samples
        }
        shape = next(iter(values.values())).shape
        missing = np.full(shape, np.nan, np.float32)
        where = element_columns(layer, self._rows[self._positions[layer]], shape[1])
        return where | {side: values.get(side, missing).ravel() for side in SIDES}


def element_columns(layer: str, rows: NDArray[np.int64], channels: int) -> dict[str, Any]:
    """Where each element of the rows (n, 2) is from, n * channels values a column."""
    image, position = rows.T
    count = len(rows) * channels
    return {
        "layer": pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), [layer]),
        "image": np.repeat(image, channels).astype(np.int32),
        "position": np.repeat(position, channels).astype(np.int32),
        "channel": np.tile(np.arange(channels, dtype=np.int32), len(rows)),
    }

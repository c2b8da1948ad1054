"""Which of the stored elements a panel shows: enough for the eye, every extreme among them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from probe.records import STRATA

POINTS = 4000  # uniform elements of one panel


def thin(samples: pd.DataFrame, points: int = POINTS) -> pd.DataFrame:
    """Every `tail` row, and about `points` rows of each other stratum by a fixed stride; elements
    that are not finite go.
    """
    finite = np.isfinite(samples["input"].to_numpy()) & np.isfinite(
        samples["normalized"].to_numpy()
    )
    samples = samples if finite.all() else samples[finite]
    parts = [
        strided(part, points) if stratum != "tail" else part for stratum, part in _strata(samples)
    ]
    return pd.concat(parts, ignore_index=True) if parts else samples.iloc[:0]


def strided(part: pd.DataFrame, points: int) -> pd.DataFrame:
    """About `points` rows of `part`, deterministic, spread over all its channels and all its
    rows.
    """
    channels = max(1, part["channel"].nunique())
    step = coprime_step(len(part), points, channels, max(1, len(part) // channels))
    return part.iloc[::step] if step > 1 else part


def coprime_step(total: int, points: int, *periods: int) -> int:
    """The smallest stride that leaves at most about `points`, sharing no factor with `periods`.

    Elements are stored channel by channel, so a stride of 128 over 512 rows would see the same 4
    tokens in each channel.
    """
    step = math.ceil(total / points)
    while step > 1 and any(math.gcd(step, period) > 1 for period in periods):
        step += 1
    return max(step, 1)


def per_layer(
    table: pd.DataFrame | Mapping[str, pd.DataFrame] | None,
) -> Mapping[str, pd.DataFrame]:
    """layer -> its rows; a mapping stays what it is."""
    if table is None:
        return {}
    if isinstance(table, Mapping):
        return table
    return {str(name): part for name, part in table.groupby("layer", sort=False, observed=True)}


def of_layer(table: pd.DataFrame, layer: str | None) -> pd.DataFrame:
    """The rows of one layer; all rows where `layer` is None."""
    return table if layer is None else table[table["layer"] == layer]


def _strata(samples: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    parts = [(name, samples[samples["stratum"] == name]) for name in STRATA]
    return [(name, part) for name, part in parts if not part.empty]

"""Columns, described once: the terminal, the page and docs/columns.md read the same records.

    python -m probe.wording.columns > docs/columns.md

To add a column, add a `Column` to its table here, and the value where the table is made.
"""

from __future__ import annotations

from probe.wording.columns.attention import ATTENTION_LAYERS, HEADS
from probe.wording.columns.captured import CAPTURED, MODEL_LAYERS
from probe.wording.columns.column import UNITS, Column, in_terminal, on_page
from probe.wording.columns.comparing import (
    COMPARED_CELLS,
    COMPARED_HEADS,
    COMPARED_LAYERS,
    COMPARISON,
    RATES,
)
from probe.wording.columns.converted import CONVERSION, SPEEDS
from probe.wording.columns.files import CHANNEL_FITS, FITS, IMAGES, MOMENTS, PROFILE, ROWS, SAMPLES
from probe.wording.columns.layers import ALPHAS
from probe.wording.columns.results import COMPARED, FOLD, key_number
from probe.wording.columns.tracking import CHANGES, TRACK, TRACKED_HEADS
from probe.wording.columns.training import EPOCHS, NORMS

# Where the columns stand: what is stored under that name, or shown by that command.
TABLES: dict[str, tuple[Column, ...]] = {
    "alpha.csv, alpha.json": ALPHAS,
    "attention.parquet": HEADS,
    "attention layers, on the screen": ATTENTION_LAYERS,
    "layers in manifest.json": CAPTURED,
    "fits.parquet": FITS,
    "channel_fits.parquet": CHANNEL_FITS,
    "moments.parquet": MOMENTS,
    "profile.parquet": PROFILE,
    "rows.parquet": ROWS,
    "images.parquet": IMAGES,
    "samples/": SAMPLES,
    "compare.csv": COMPARED,
    "table of convert": CONVERSION,
    "result of fold": FOLD,
    "speed, of convert and fold": SPEEDS,
    "track.csv, track.parquet": TRACK,
    "layers of a tracking, on the screen": CHANGES,
    "attention.csv, attention.parquet of a tracking": TRACKED_HEADS,
    "epochs.csv, epochs.parquet": EPOCHS,
    "norms.csv, norms.parquet": NORMS,
    "comparison.csv, comparison.parquet": COMPARISON,
    "cells.csv, cells.parquet": COMPARED_CELLS,
    "grid.csv, grid.parquet": RATES,
    "layers.csv, layers.parquet": COMPARED_LAYERS,
    "attention.csv, attention.parquet of a comparison": COMPARED_HEADS,
}

__all__ = [
    "ALPHAS",
    "ATTENTION_LAYERS",
    "CAPTURED",
    "CHANGES",
    "CHANNEL_FITS",
    "COMPARED",
    "COMPARED_CELLS",
    "COMPARED_HEADS",
    "COMPARED_LAYERS",
    "COMPARISON",
    "CONVERSION",
    "EPOCHS",
    "FITS",
    "FOLD",
    "HEADS",
    "IMAGES",
    "MODEL_LAYERS",
    "MOMENTS",
    "NORMS",
    "PROFILE",
    "RATES",
    "ROWS",
    "SAMPLES",
    "SPEEDS",
    "TABLES",
    "TRACK",
    "TRACKED_HEADS",
    "UNITS",
    "Column",
    "in_terminal",
    "key_number",
    "on_page",
]

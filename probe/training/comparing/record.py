"""`comparison.json`: what is compared, so that pages are made again without the trainings.

comparison.json                        what was asked, what became of each cell, forward times
comparison.parquet  comparison.csv     a row per norm
cells.parquet       cells.csv          a row per norm and seed
layers.parquet  attention.parquet      rows of the runs (and .csv)
grid.parquet    grid.csv               with a grid of learning rates
cells/NORM/seed_N/                     the trainings
grid/NORM/lr_X/                        the trainings of the grid
runs/NORM/seed_N/                      a run of each final network
figures/  report.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probe.errors import UsageError
from probe.formatting import json_bytes
from probe.store.disk import writing
from probe.store.journal import settle
from probe.store.outputs import NO_CONTENT, on_this_machine
from probe.store.staging import is_left_over
from probe.training.folder import own_record

FORMAT, VERSION = "probe-comparison", 1
RECORD = "comparison.json"
TABLES = ("comparison", "cells", "layers", "attention", "grid")
CONTENTS = frozenset(
    (RECORD, "cells", "grid", "runs", "figures", "report.html")
    + tuple(f"{name}.{ending}" for name in TABLES for ending in ("parquet", "csv"))
)


def comparison_folder(out: str | Path) -> Path:
    """The folder of a comparison, new or one that goes on. Raises UsageError for a place that is
    taken by anything else.
    """
    folder = on_this_machine(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {out} is a file; give a folder")
    names = sorted(each.name for each in folder.iterdir()) if folder.exists() else []
    names = [name for name in names if name not in NO_CONTENT and not is_left_over(name)]
    foreign = [name for name in names if name not in CONTENTS]
    if foreign or (names and RECORD not in names):
        raise UsageError(
            f"--out {out} holds files and no comparison ({', '.join((foreign or names)[:3])}); "
            "give a new folder"
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        settle(folder)
    return folder


def record_bytes(record: Mapping[str, Any]) -> bytes:
    return json_bytes({"format": FORMAT, "version": VERSION, **record})


def read_record(folder: Path) -> dict[str, Any]:
    """What comparison.json says. Raises UsageError for a folder that holds no comparison."""
    return own_record(folder / RECORD, FORMAT, VERSION, "comparison")


__all__ = ["RECORD", "comparison_folder", "read_record", "record_bytes"]

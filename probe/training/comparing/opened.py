"""A comparison as its folder has it: while it still runs, the cells that are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from probe.plots import Frame
from probe.store import Run, open_run
from probe.store.outputs import is_run
from probe.training.comparing.cells import CELLS, Outcome
from probe.training.comparing.figures import ComparisonTables
from probe.training.comparing.probes import RUNS
from probe.training.comparing.record import read_record
from probe.training.comparing.tables import cell_table, comparison_table
from probe.training.comparing.timing import BATCH
from probe.training.comparing.variants import Cell, variants
from probe.training.result import open_training
from probe.wording.phrases import plural


@dataclass(frozen=True)
class Compared:
    """A comparison as its folder has it."""

    folder: Path
    record: Mapping[str, Any]

    @cached_property
    def outcomes(self) -> list[Outcome]:
        by_label = {each.label: each for each in variants(self.record["norms"])}
        return [
            Outcome(
                Cell(by_label[entry["norm"]], entry["seed"]),
                open_training(self.folder / CELLS / entry["folder"])
                if entry["status"] == "finished"
                else None,
                entry["reason"] or "",
                entry["lr"],
            )
            for entry in self.record["cells"]
        ]

    @cached_property
    def runs(self) -> dict[Cell, Run]:
        places = {each.cell: self.folder / RUNS / each.cell.name for each in self.outcomes}
        asked = set(self.record.get("runs") or ())
        return {
            cell: open_run(place)
            for cell, place in places.items()
            if cell.name in asked and is_run(place)
        }

    @cached_property
    def cells(self) -> pd.DataFrame:
        return cell_table(self.outcomes, self.runs)

    @cached_property
    def comparison(self) -> pd.DataFrame:
        times = (self.record.get("forward") or {}).get("norms") or {}
        return comparison_table(self.cells, str(self.record["reference"]), times)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """The epochs of every finished cell, one below the other."""
        parts = [
            each.training.epochs.assign(norm=each.cell.variant.label, seed=each.cell.seed)
            for each in self.outcomes
            if each.training is not None
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    @property
    def firsts(self) -> dict[str, Outcome]:
        """The first finished cell of each norm."""
        finished = [each for each in reversed(self.outcomes) if each.training is not None]
        return {each.cell.variant.label: each for each in finished}

    @cached_property
    def figure_tables(self) -> ComparisonTables:
        labels = [str(norm) for norm in self.comparison["norm"]]
        firsts = {label: self.firsts[label] for label in labels if label in self.firsts}
        return ComparisonTables(
            self.cells,
            self.comparison,
            self.epochs,
            {label: each.training.norms for label, each in firsts.items() if each.training},
            {
                label: self.runs[each.cell]
                for label, each in firsts.items()
                if each.cell in self.runs
            },
            Frame(_heading(self.record, plural(len(self.record["seeds"]), "seed"))),
            Frame(_heading(self.record, f"seed {self.record['seeds'][0]}")),
            int((self.record.get("forward") or {}).get("batch") or BATCH),
        )


def open_comparison(folder: Path) -> Compared:
    """Raises UsageError where there is none."""
    return Compared(folder, read_record(folder))


def model_of(record: Mapping[str, Any]) -> str:
    return str(record.get("model")).removeprefix("timm:")


def _heading(record: Mapping[str, Any], seeds: str) -> str:
    recipe, data = record.get("recipe") or {}, record.get("data") or {}
    images = data.get("train_images")
    trained = "" if recipe.get("weights") == "random" else "from trained weights"
    length = f"{recipe.get('epochs')} epochs" + (f" of {images:,} images" if images else "")
    return ", ".join(part for part in (model_of(record), trained, seeds, length) if part)

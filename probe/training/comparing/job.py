"""The work of a comparison, stage by stage; its record is written after every cell, so that pages
can be made of one that still runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from probe.models.loading.load import resolve_device
from probe.records import Progress
from probe.store.step import Step
from probe.training.comparing.cells import Outcome, Trainer, choose_rates
from probe.training.comparing.probes import final_model, final_runs, some_of, starting_runs
from probe.training.comparing.record import RECORD, read_record, record_bytes
from probe.training.comparing.starts import Asked
from probe.training.comparing.timing import BATCH, forward_times
from probe.training.comparing.variants import Cell, Variant
from probe.training.images import TrainingImages

DATA = ("data", "val_data", "train_images", "val_images")


@dataclass(frozen=True)
class Grid:
    """Learning rates to choose from: on which share of the training images, after how many epochs
    (None: all); no rates: the recipe's is for all.
    """

    rates: tuple[float, ...]
    held_back: float
    epochs: int | None


@dataclass
class Job:
    """options: of `train`, the same for all cells."""

    folder: Path
    asked: Asked
    chosen: Sequence[Variant]
    seeds: Sequence[int]
    reference: Variant
    options: dict[str, Any]
    images: TrainingImages
    probe_images: int
    progress: Progress
    record: dict[str, Any] = field(default_factory=dict)

    def run(self, grid: Grid) -> None:
        """Raises what ends a comparison: Interrupted, UsageError."""
        self._begin()
        trainer = Trainer(self.folder, self.asked, self.options, self.progress, self._starts())
        outcomes = self._train(trainer, self._rates(trainer, grid))
        if self.probe_images:
            source = some_of(self.images.validation, self.probe_images)
            runs = final_runs(self.folder, outcomes, source, self.options["device"], self.progress)
            self.record["runs"] = sorted(runs)
        self._time(outcomes)
        self.record["status"] = "finished"
        self._write()

    def _begin(self) -> None:
        """The record; forward times of a comparison that goes on are kept."""
        before = read_record(self.folder) if (self.folder / RECORD).exists() else {}
        used = self.asked.choice(self.chosen[0], self.seeds[0]).as_dict()
        self.record = {
            "status": "running",
            "model": used["recipe"]["model"],
            "recipe": used["recipe"],
            "overridden": used["overridden"],
            "norms": [variant.label for variant in self.chosen],
            "reference": self.reference.label,
            "seeds": list(self.seeds),
            "data": {name: self.options[name] for name in DATA},
            "probe_images": self.probe_images,
            "grid": [],
            "cells": [],
            "runs": [],
            "forward": before.get("forward") or {},
        }
        self._write()

    def _write(self) -> None:
        with Step(self.folder) as step:
            step.put(self.folder / RECORD, record_bytes(self.record))

    def _starts(self) -> Mapping[int, str]:
        """Runs that fitted norms begin from, by seed; none where no norm does."""
        if not any(variant.init == "fitted" for variant in self.chosen):
            return {}
        source = some_of(self.images.training, max(self.probe_images, 1))
        return starting_runs(
            self.folder,
            self.asked,
            self.seeds,
            self.images,
            source,
            self.options["offline"],
            self.progress,
        )

    def _rates(self, trainer: Trainer, grid: Grid) -> dict[str, float | None]:
        """Learning rate of each norm by its label; without a grid none, which is the recipe's."""
        if not grid.rates:
            return {}
        rows = choose_rates(
            trainer, self.chosen, self.seeds[0], grid.rates, grid.held_back, grid.epochs
        )
        self.record["grid"] = rows
        return {row["norm"]: row["lr"] for row in rows if row["chosen"]}

    def _train(self, trainer: Trainer, rates: Mapping[str, float | None]) -> list[Outcome]:
        """Seed by seed, so that a comparison that is stopped has all norms of some seeds."""
        cells = [Cell(variant, seed) for seed in self.seeds for variant in self.chosen]
        outcomes: list[Outcome] = []
        for outcome in trainer.cells(cells, rates):
            outcomes.append(outcome)
            self.record["cells"].append(_entry(outcome))
            self._write()
        return outcomes

    def _time(self, outcomes: Sequence[Outcome]) -> None:
        """Forward passes of the first finished network of each norm, unless they are there."""
        firsts = {
            each.cell.variant.label: each.training
            for each in reversed(outcomes)
            if each.training is not None
        }
        if firsts.keys() == (self.record["forward"].get("norms") or {}).keys():
            return
        device = resolve_device(self.options["device"])
        models = {label: final_model(each, device) for label, each in firsts.items()}
        size = next(iter(models.values())).input_size
        self.progress("time", 0, None, f"forward passes of {len(models)} networks")
        modules = {label: model.module for label, model in models.items()}
        images = torch.zeros(BATCH, *size, device=device)
        times = forward_times(modules, self.reference.label, images)
        self.record["forward"] = {"batch": BATCH, "device": str(device), "norms": times}


def _entry(outcome: Outcome) -> dict[str, Any]:
    return {
        "norm": outcome.cell.variant.label,
        "seed": outcome.cell.seed,
        "folder": outcome.cell.name,
        "status": outcome.status,
        "reason": outcome.reason or None,
        "lr": outcome.rate,
    }


__all__ = ["Grid", "Job"]

"""The cells of a comparison: one training per norm and seed, each in a folder of its own that the
same command continues.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probe.errors import ProbeError, UsageError, first_line
from probe.records import Progress, placed
from probe.training.comparing.starts import Asked
from probe.training.comparing.variants import Cell, Variant
from probe.training.folder import Interrupted
from probe.training.result import Training
from probe.training.train import train

CELLS, GRID = "cells", "grid"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: its training, or the reason why it did not come to its end."""

    cell: Cell
    training: Training | None
    reason: str = ""
    rate: float | None = None  # learning rate of the recipe, as it was chosen

    @property
    def status(self) -> str:
        return "failed" if self.training is None else "finished"


@dataclass(frozen=True)
class Trainer:
    """Trains cells. options: of `train`, the same for all. alphas: run of the start of each seed,
    for fitted starts.
    """

    folder: Path
    asked: Asked
    options: Mapping[str, Any]
    progress: Progress
    alphas: Mapping[int, Any] = field(default_factory=dict)

    def cells(self, cells: Sequence[Cell], rates: Mapping[str, float | None]) -> Iterator[Outcome]:
        """The outcome of each cell as it is there, in their order. rates: learning rate by variant;
        None: the recipe's.
        """
        for number, cell in enumerate(cells, start=1):
            where = f"cell {number} of {len(cells)}, {cell}"
            rate = rates.get(cell.variant.label)
            yield self.one(cell, self.folder / CELLS / cell.name, where, lr=rate)

    def one(self, cell: Cell, out: Path, where: str, **more: Any) -> Outcome:
        """One training. Raises what ends the comparison: Interrupted, UsageError."""
        asked = self.asked.of(cell.variant, cell.seed)
        options = {**self.options, **asked, **_set(more)}
        if cell.variant.init == "fitted":
            options["alphas"] = self.alphas[cell.seed]
        try:
            training = train(
                out=str(out),
                recipe=self.asked.base(cell.variant),
                as_published=self.asked.as_published,
                report=False,
                progress=placed(self.progress, where),
                **options,
            )
        except (Interrupted, UsageError):
            raise
        except ProbeError as reason:
            return Outcome(cell, None, _without_advice(first_line(reason)), more.get("lr"))
        # without the network, of which a comparison would keep one per cell in memory
        done = Training(training.path, training.record)
        return Outcome(cell, done, "", training.record["recipe"]["lr"])


def _without_advice(reason: str) -> str:
    """What a training says of going on in its folder is no part of why it failed."""
    return reason.split("; the same command")[0].rpartition("; ")[0] or reason


def choose_rates(
    trainer: Trainer,
    chosen: Sequence[Variant],
    seed: int,
    grid: Sequence[float],
    held_back: float,
    epochs: int | None,
) -> list[dict[str, Any]]:
    """One row per norm and learning rate of the grid, trained on the rest of the training images
    and evaluated on the part held back: norm, lr, status, reason, top1, val_loss, chosen.

    Of each norm the rate with the highest top-1 is chosen, of equal ones that of the lower loss.
    """
    rows = []
    for place, variant in enumerate(chosen):
        mine = []
        for number, rate in enumerate(grid, start=1):
            of = place * len(grid) + number
            where = f"grid {of} of {len(chosen) * len(grid)}, {variant.label}, rate {rate:g}"
            out = trainer.folder / GRID / variant.folder / f"lr_{rate:g}"
            more = {"lr": rate, "held_back": held_back, "epochs": epochs}
            outcome = trainer.one(Cell(variant, seed), out, where, **more)
            mine.append(_grid_row(variant, rate, outcome))
        finished = [row for row in mine if row["top1"] is not None]
        if finished:
            best = max(finished, key=lambda row: (row["top1"], -row["val_loss"]))
            best["chosen"] = True
        rows += mine
    return rows


def _set(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _grid_row(variant: Variant, rate: float, outcome: Outcome) -> dict[str, Any]:
    last = {} if outcome.training is None else outcome.training.epochs.iloc[-1].to_dict()
    return {
        "norm": variant.label,
        "lr": rate,
        "status": outcome.status,
        "reason": outcome.reason or None,
        "top1": last.get("top1"),
        "val_loss": last.get("val_loss"),
        "chosen": False,
    }


__all__ = ["CELLS", "GRID", "Outcome", "Trainer", "choose_rates"]

"""What a distillation is to do, and the recipe that this makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probe.errors import UsageError, unknown
from probe.jobs.inputs import shown_name
from probe.models.loading.load import Model
from probe.training.distilling.draws import rounds_of
from probe.training.recipe import Recipe

NORMS, ALL = "norms", "all"
# learning rate of the norms' weights and biases, by what is trained
RATES = {NORMS: 5e-3, ALL: 2e-3}
SMALL = 64  # pixels: smaller images are shifted, larger ones cropped at random sizes


@dataclass(frozen=True)
class Asked:
    """What a distillation is to do. lr: of the norms' weights; None: that of RATES."""

    data: Any
    folder: Path  # in which it continues
    steps: int
    train: str = NORMS
    images: int | None = None
    batch_size: int = 64
    lr: float | None = None
    block_weight: float = 1.0
    precision: str = "no"
    micro_batch: int | None = None
    workers: int = 0
    seed: int = 0
    save_minutes: float = 1.0
    overwrite: bool = False  # another distillation that the folder may hold

    def __post_init__(self) -> None:
        if self.train not in RATES:
            raise unknown("--train", self.train, RATES)
        for name, value in (("--distill", self.steps), ("--train-images", self.images or 1)):
            if value < 1:
                raise UsageError(f"{name} {value}: must be at least 1")
        if self.lr is not None and not self.lr > 0:
            raise UsageError(f"--lr {self.lr:g}: must be above 0")

    @property
    def rate(self) -> float:
        return RATES[self.train] if self.lr is None else self.lr


def recipe_of(asked: Asked, model: Model) -> Recipe:
    """The recipe whose epochs are rounds; cosine per update, after a round of warm-up."""
    rounds, _ = rounds_of(asked.steps)
    small = len(model.input_size) == 3 and 0 < model.input_size[-1] <= SMALL
    return Recipe(
        name="distilling",
        source="this package",
        dataset="",
        model=shown_name(model),
        crop="padded" if small else "resized",
        scale=(0.25, 1.0),
        lr=asked.rate,
        weight_decay=0.0,
        clip_grad=1.0,
        epochs=rounds,
        batch_size=asked.batch_size,
        step_per="update",
        warmup_epochs=1 if rounds > 2 else 0,
        warmup_lr=asked.rate / 100,
        seed=asked.seed,
        precision=asked.precision,
    )

"""The rounds of a distillation: the loop of a training that keeps its best weights and ends early
where nothing is gained any more.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from probe.formatting import number
from probe.training.loop import Loop

PATIENCE = 6  # rounds without a gain
LEAST_GAIN = 0.005  # of the KL


class Best:
    """The weights of least KL so far, kept where a training keeps its averaged weights."""

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module)

    def take(self, module: nn.Module) -> None:
        self.module.load_state_dict(module.state_dict())


@dataclass
class DistillingLoop(Loop):
    """Ends after `PATIENCE` rounds that did not lower the KL on the held-out images."""

    best: Any = None  # Best
    unit = "round"
    right = "same class"

    @property
    def ends_early(self) -> bool:
        return rounds_without_gain([row["kl"] for row in self.standing.epochs]) >= PATIENCE

    def keep_best(self, number: int, module: nn.Module) -> None:
        """After a round."""
        if best_round([row["kl"] for row in self.standing.epochs]) == number:
            self.best.take(module)

    def line(self, row: dict[str, Any]) -> str:
        """A round, for people."""
        score = f"KL {number(row['kl'])} nats, same class {100 * row['agreement']:.1f} %"
        if "train_loss" not in row:
            return f"before: {score}"
        seconds = row["seconds"] + row["eval_seconds"]
        return (
            f"round {row['epoch']}/{self.recipe.epochs}: loss {row['train_loss']:.4f}, {score}, "
            f"{seconds:.1f} s"
        )


def best_round(kls: list[float]) -> int:
    """The first one of least KL; 0 is the start."""
    return kls.index(min(kls))


def rounds_without_gain(kls: list[float]) -> int:
    """Rounds since the KL was last lowered by more than `LEAST_GAIN` of it."""
    last, least = 0, math.inf
    for place, kl in enumerate(kls):
        if kl < least * (1 - LEAST_GAIN):
            last, least = place, kl
    return len(kls) - 1 - last

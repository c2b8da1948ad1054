"""The learning rate of each update, as a pure function of a recipe and of where a training stands.

A schedule gives the share of the way from `min_lr` to the base learning rate; warm-up and cooldown
are put around it, so each schedule is one formula:

    rate = min_lr + (base - min_lr) * share

Cosine and step are those of timm's schedulers (with `step_per` as `t_in_epochs`), which the tests
compare with. No state: a resumed training asks for the rate of its next update.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from probe.errors import UsageError, unknown
from probe.training.recipe import Recipe

LAST_THIRD = 0.66  # of a two-phase training: the plain cosine from here on


@dataclass(frozen=True)
class Position:
    """Where a training stands before an update: how many it has made, how many an epoch has."""

    step: int
    steps_per_epoch: int

    def epoch(self, step_per: str) -> float:
        """Epochs so far; whole ones where the rate changes per epoch only."""
        whole = self.step // self.steps_per_epoch
        return whole if step_per == "epoch" else self.step / self.steps_per_epoch


Schedule = Callable[[Recipe, Position], float]  # the share of the base learning rate


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate of the update after `step` updates, for a parameter group of `lr_scale` 1.

    Raises UsageError for a schedule that is unknown or that the recipe's epochs cannot hold:
    ask for that of step 0 before a training starts.
    """
    schedule = schedule_of(recipe)
    position, base = Position(step, steps_per_epoch), base_rate(recipe)
    epoch = position.epoch(recipe.step_per)
    if epoch < recipe.warmup_epochs:
        return recipe.warmup_lr + (base - recipe.warmup_lr) * epoch / recipe.warmup_epochs
    return recipe.min_lr + (base - recipe.min_lr) * schedule(recipe, position)


def base_rate(recipe: Recipe) -> float:
    """`lr`, scaled to the batch size where the recipe says for which one it holds."""
    if recipe.lr_base_batch is None:
        return recipe.lr
    return recipe.lr * recipe.batch_size / recipe.lr_base_batch


def schedule_of(recipe: Recipe) -> Schedule:
    """The schedule of a recipe, checked against its other fields. Raises UsageError."""
    if recipe.sched not in SCHEDULES:
        raise unknown("sched", recipe.sched, SCHEDULES)
    if recipe.step_per not in ("epoch", "update"):
        raise unknown("step_per", recipe.step_per, ("epoch", "update"))
    if decay_epochs(recipe) <= 0:
        raise UsageError(
            f"epochs={recipe.epochs} leaves none between {recipe.warmup_epochs:g} of warm-up and "
            f"{recipe.cooldown_epochs} of cooldown; give more epochs, or less of these"
        )
    if recipe.sched == "two_phase" and not recipe.epoch_threshold < LAST_THIRD:
        raise UsageError(
            f"epoch_threshold={recipe.epoch_threshold:g} given; under {LAST_THIRD} is needed, "
            "else the rate jumps where the first phase ends"
        )
    return SCHEDULES[recipe.sched]


def decay_epochs(recipe: Recipe) -> float:
    """Length of the decay: all epochs but those of the cooldown; also but those of the warm-up
    where the decay starts after it (`warmup_prefix`) instead of under it.
    """
    warmup = recipe.warmup_epochs if recipe.warmup_prefix else 0
    return recipe.epochs - recipe.cooldown_epochs - warmup


def cosine(recipe: Recipe, position: Position) -> float:
    """(1 + cos(pi e / E)) / 2 for E epochs of decay, then 0: the cooldown."""
    return half_cosine(_decayed(recipe, position) / decay_epochs(recipe))


def cosine_per_batch(recipe: Recipe, position: Position) -> float:
    """A published fault, kept to repeat what was published with it: (1 + cos(pi t / E)) / 2 with E
    in epochs and t in updates, without an end: the rate goes up and down every 2 E updates.
    """
    return (1 + math.cos(math.pi * position.step / decay_epochs(recipe))) / 2


def two_phase(recipe: Recipe, position: Position) -> float:
    """The custom schedule of the LearnableScaler project: a lower cosine first, the plain one last.

    With cos(e) = (1 + cos(pi e / E)) / 2, f = epoch_factor, n0 = epoch_threshold * E and
    n1 = int(0.66 E):  f cos(e) for e < n0;  cos(e) from n1 on;  a straight line between.
    """
    epochs, epoch = decay_epochs(recipe), _decayed(recipe, position)
    start, end = recipe.epoch_threshold * epochs, int(LAST_THIRD * epochs)
    if epoch < start:
        return recipe.epoch_factor * half_cosine(epoch / epochs)
    if epoch >= end:
        return half_cosine(epoch / epochs)
    low, high = recipe.epoch_factor * half_cosine(start / epochs), half_cosine(end / epochs)
    return low + (high - low) * (epoch - start) / (end - start)


def constant(recipe: Recipe, position: Position) -> float:
    """1."""
    return 1.0


def step(recipe: Recipe, position: Position) -> float:
    """decay_rate to the power of how many times `decay_every` epochs have gone by."""
    return float(recipe.decay_rate ** (_decayed(recipe, position) // recipe.decay_every))


def half_cosine(share: float) -> float:
    """From 1 at 0 to 0 at 1, and 0 after it."""
    return (1 + math.cos(math.pi * min(share, 1.0))) / 2


def _decayed(recipe: Recipe, position: Position) -> float:
    """Epochs since the decay began."""
    prefix = recipe.warmup_epochs if recipe.warmup_prefix else 0
    return position.epoch(recipe.step_per) - prefix


SCHEDULES: dict[str, Schedule] = {
    "cosine": cosine,
    "two_phase": two_phase,
    "step": step,
    "constant": constant,
    "cosine_per_batch": cosine_per_batch,
}

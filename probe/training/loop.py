"""The epochs of a training: updates, evaluation, history, and saving so that the same command
continues after any end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from probe.errors import ProbeError
from probe.models.reading.not_finite import watching
from probe.records import Progress
from probe.training.batches import Share, Shares
from probe.training.folder import Interrupted
from probe.training.recipe import Recipe
from probe.training.saving import Saving
from probe.training.schedules import learning_rate
from probe.training.state import Standing
from probe.training.update import NotFinite, Updater

# of a network after an epoch: columns of the table of epochs, rows of the table of norms
Surveys = Callable[[nn.Module, int, Progress], tuple[dict[str, Any], list[dict[str, Any]]]]


@dataclass
class Loop:
    """A training that is set up. `run` brings it from `standing` to its end."""

    recipe: Recipe
    module: nn.Module
    averaged: Any  # timm's ModelEmaV3, or None
    optimizer: Any
    updater: Updater
    shares: Shares
    survey: Surveys
    saving: Saving
    standing: Standing
    log: Callable[[dict[str, float], int], None]  # what trackers are told, at which update
    say: Callable[[str], None]
    progress: Progress
    after_epoch: Callable[[int, nn.Module], None]
    _told: set[str] = field(default_factory=set)  # images that could not be read
    unit = "epoch"
    right = "top-1"  # what the share of right answers is called

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated: of the averaged weights where there are some."""
        return self.averaged.module if self.averaged is not None else self.module

    @property
    def ends_early(self) -> bool:
        """Is there nothing to gain from the epochs that are left?"""
        return False

    @property
    def updates(self) -> int:
        """Of the weights, so far."""
        return self.standing.epoch * self.shares.order.steps + self.standing.step

    def run(self) -> None:
        """Raises Interrupted at Ctrl-C, ProbeError where loss or gradient stop being finite."""
        try:
            if not self.standing.epochs:
                self._finish_epoch(None)
            while self.standing.epoch < self.recipe.epochs and not self.ends_early:
                self._epoch()
            self.saving.finished(self.standing, self.evaluated)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; {self.saving.ended('interrupted')}") from None
        except ProbeError as error:
            raise type(error)(f"{error}; {self.saving.ended('failed')}") from error

    def _epoch(self) -> None:
        """The rest of the epoch that is under way."""
        standing, rate = self.standing, 0.0
        last = time.perf_counter()
        for share in self.shares.epoch(standing.epoch, standing.step):
            rate = self._update(share)
            standing.seconds += time.perf_counter() - last
            last = time.perf_counter()
            self._report()
            if self.saving.due:
                self.saving.save(standing)
                last = time.perf_counter()
        self._finish_epoch(rate)

    def _update(self, share: Share) -> float:
        """One update; returns its learning rate."""
        standing, steps = self.standing, self.shares.order.steps
        for reason in share.skipped:
            if reason not in self._told:
                self.say(f"left out: {reason}")
                self._told.add(reason)
        rate = learning_rate(self.recipe, self.updates, steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        try:
            sums = self.updater(share, self.updates)
        except NotFinite as stopped:
            raise self._blamed(stopped, share) from stopped
        if self.averaged is not None:
            self.averaged.update(self.module)
        standing.step += 1
        standing.loss += sums.loss
        standing.right += sums.right
        standing.images += sums.images
        standing.micro = self.updater.micro
        return rate

    def _blamed(self, stopped: NotFinite, share: Share) -> ProbeError:
        """The update once more, with every layer watched."""
        from accelerate.utils import gather_object

        with watching(self.module) as suspects:
            self.updater.replay(share, stopped.step)
        # sorted: a process with a suspect speaks before one without
        told = sorted(gather_object([(not suspects.any, suspects.words())]))
        return ProbeError(
            f"{stopped.what} of update {stopped.step + 1} ({self.unit} {self.standing.epoch + 1}) "
            f"is not finite, {told[0][1]}"
        )

    def _report(self) -> None:
        standing = self.standing
        seen = standing.images or 1
        self.progress(
            "train",
            self._images_done(),
            self._images_planned(),
            f"{self.unit} {standing.epoch + 1}/{self.recipe.epochs}, "
            f"loss {standing.loss / seen:.3f}, {self.right} {100 * standing.right / seen:.1f} %",
        )

    def _images_done(self) -> int:
        return self.standing.epoch * self.shares.order.images_per_epoch + self.standing.images

    def _images_planned(self) -> int:
        return self.recipe.epochs * self.shares.order.images_per_epoch

    def _finish_epoch(self, rate: float | None) -> None:
        """Evaluation, rows of the tables, and saving; rate: None before the first epoch."""
        standing = self.standing
        number = 0 if rate is None else standing.epoch + 1
        trained_on = self._images_done()

        def show(stage: str, done: int, total: int | None, message: str = "") -> None:
            said = f"{self.unit} {number}/{self.recipe.epochs}, validation {done}/{total}"
            self.progress("train", trained_on, self._images_planned(), said)

        trained = {} if rate is None else self._trained(rate)
        row, norms = self.survey(self.evaluated, number, show)
        standing.epochs.append({"epoch": number, "step": self.updates, **trained, **row})
        standing.norms += norms
        self.log(_for_trackers(standing.epochs[-1], norms), self.updates)
        self.say(self.line(standing.epochs[-1]))
        self.after_epoch(number, self.evaluated)
        if rate is not None:
            standing.next_epoch()
        self.saving.epoch_done(standing, self.evaluated, number)

    def line(self, row: dict[str, Any]) -> str:
        """An epoch, for people."""
        return _line(row, self.recipe.epochs)

    def _trained(self, rate: float) -> dict[str, float]:
        """The columns of the training part."""
        standing = self.standing
        return {
            "learning_rate": rate,
            "train_loss": standing.loss / standing.images,
            "seconds": standing.seconds,
            "images_per_second": standing.images / standing.seconds,
        }


def _for_trackers(row: dict[str, Any], norms: list[dict[str, Any]]) -> dict[str, float]:
    values = {key: float(each) for key, each in row.items() if key != "step" and each is not None}
    alphas = {
        f"alpha/{each['layer']}": each["value"]
        for each in norms
        if each["quantity"] == "alpha" and each["index"] == 0
    }
    return values | alphas


def _line(row: dict[str, Any], epochs: int) -> str:
    """An epoch, for people."""
    top5 = f", top-5 {row['top5']:.2f} %" if row.get("top5") is not None else ""
    scores = f"val. loss {row['val_loss']:.4f}, top-1 {row['top1']:.2f} %{top5}"
    if "train_loss" not in row:
        return f"before training: {scores}"
    seconds = row["seconds"] + row["eval_seconds"]
    return f"epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.4f}, {scores}, {seconds:.1f} s"

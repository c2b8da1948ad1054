"""One update of the weights: the share of this process in micro-batches, gradients summed over all
processes, the step of the optimizer.

Gradients are summed here, after all micro-batches, and not by a wrapper during the backward pass:
so all processes can agree beforehand that none of them ran out of memory and that the numbers are
finite, and the module stays the one that hooks and checkpoints know.

Every sum is divided by the images of the whole batch: the same gradient however it was cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from probe.errors import ProbeError
from probe.training.augment import Mixing
from probe.training.batches import Share
from probe.training.network import logits_of
from probe.training.order import Indices, parts
from probe.training.randomness import Stream, derived
from probe.training.recipe import Recipe


@dataclass(frozen=True)
class Sums:
    """Over the images of an update, of all processes."""

    loss: float
    right: float  # images whose largest logit is their class
    images: int


class NotFinite(ProbeError):
    """Loss or gradient of an update is not finite: `what` says which."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"{what} of update {step + 1} is not finite")
        self.what, self.step = what, step


class Updater:
    """Makes updates. `micro` is the number of images of a forward pass, halved where the memory of
    the device does not hold them.
    """

    training_mode = True  # of the module while it is updated

    def __init__(
        self,
        module: nn.Module,
        optimizer: Any,
        accelerator: Any,
        recipe: Recipe,
        mixing: Mixing,
        micro: int,
        say: Callable[[str], None],
    ) -> None:
        self.module, self.optimizer, self.accelerator = module, optimizer, accelerator
        self.recipe, self.mixing, self.micro, self._say = recipe, mixing, micro, say
        # what to add to the mean loss of a forward pass; see probe.training.losses
        self.extra: Callable[[], Tensor | None] = lambda: None
        self._trained = [each for each in module.parameters() if each.requires_grad]
        self._smoothing = 0.0 if recipe.mixup > 0 or recipe.cutmix > 0 else recipe.smoothing

    def __call__(self, share: Share, step: int) -> Sums:
        """Update number `step` (from 0). Raises NotFinite, before the weights change, for a loss or
        a gradient that is not finite; ProbeError where one image alone takes too much memory.
        """
        self.module.train(self.training_mode)
        while (sums := self._gradients(share, step)) is None:
            self._halve(share)
        norm = self._total_gradient(share, sums)
        loss, right, images, size = norm
        if not math.isfinite(loss):
            raise NotFinite("the loss", step)
        if not math.isfinite(size) and self.accelerator.scaler is None:
            raise NotFinite("the gradient", step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._same_buffers()
        return Sums(loss, right, int(images))

    def replay(self, share: Share, step: int) -> None:
        """Forward and backward pass of an update once more, as they were."""
        self.module.train(self.training_mode)
        self._gradients(share, step)

    def _gradients(self, share: Share, step: int) -> Tensor | None:
        """Sum of loss, right answers and images (3,); None where any process ran out of memory."""
        self.optimizer.zero_grad()
        sums = torch.zeros(3, dtype=torch.float64)
        short = False
        try:
            for number, places in enumerate(self._micro_batches(share)):
                torch.manual_seed(self._seed(step, number))
                sums += self._micro_batch(share, places, step)
        except torch.OutOfMemoryError:
            short = True
        if self._any(short):
            self.optimizer.zero_grad()
            return None
        return sums

    def _micro_batches(self, share: Share) -> Iterator[Indices]:
        length = len(share.labels)
        number = -(-length // self.micro)
        return (places for places in parts(length, number) if len(places))

    def _seed(self, step: int, micro_batch: int) -> int:
        rank = self.accelerator.process_index
        return derived(self.recipe.seed, Stream.DROPOUT, step, rank, micro_batch)

    def _micro_batch(self, share: Share, places: Indices, step: int) -> Tensor:
        images, labels = share.part(places, self.accelerator.device)
        loss, right = self.losses(images, labels, step)
        # a process without an image of its own in a last, small batch adds nothing
        counted = 1.0 if share.counted else 0.0
        total, added = loss * (counted / share.batch), self.extra()
        if added is not None:
            total = total + added * (counted * len(labels) / share.batch)
        self.accelerator.backward(total)
        return counted * torch.stack(
            [
                loss.detach().double().cpu(),
                right.double().cpu(),
                torch.tensor(float(len(labels)), dtype=torch.float64),
            ]
        )

    def losses(self, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Sum of the loss over a micro-batch of update `step`, and images that are right."""
        mixed, targets = self.mixing(images, labels, step)
        with self.accelerator.autocast():
            logits = logits_of(self.module(mixed)).float()
        loss = F.cross_entropy(logits, targets, label_smoothing=self._smoothing, reduction="sum")
        return loss, (logits.detach().argmax(1) == labels).sum()

    def _total_gradient(self, share: Share, sums: Tensor) -> tuple[float, float, float, float]:
        """Sums gradients and counts over the processes; loss, right answers, images and the norm of
        the gradient, clipped as the recipe says.
        """
        gradients = [each.grad for each in self._trained if each.grad is not None]
        if self.accelerator.num_processes > 1:
            sums = self._summed(sums)
            self._sum_gradients()
            gradients = [each.grad for each in self._trained if each.grad is not None]
        if self.recipe.clip_grad is not None:
            norm = self.accelerator.clip_grad_norm_(self._trained, self.recipe.clip_grad)
        else:
            norm = torch.nn.utils.get_total_norm(gradients)
        loss, right, images = sums.tolist()
        return loss, right, images, float(norm)

    def _sum_gradients(self) -> None:
        """One message for all of them; a parameter without a gradient counts as zero."""
        for each in self._trained:
            if each.grad is None:
                each.grad = torch.zeros_like(each)
        flat = torch.cat([each.grad.reshape(-1) for each in self._trained])  # type: ignore[union-attr]
        flat = self.accelerator.reduce(flat, reduction="sum")
        sizes = [each.numel() for each in self._trained]
        for each, part in zip(self._trained, flat.split(sizes), strict=True):
            each.grad = part.view_as(each)

    def _same_buffers(self) -> None:
        """Running statistics are those of the first process, as in data-parallel torch."""
        buffers = [each for each in self.module.buffers() if each.numel()]
        if self.accelerator.num_processes > 1 and buffers:
            from accelerate.utils import broadcast

            for mine, first in zip(buffers, broadcast(buffers), strict=True):
                mine.copy_(first)

    def _any(self, short: bool) -> bool:
        if self.accelerator.num_processes == 1:
            return short
        return bool(self._summed(torch.tensor([float(short)], dtype=torch.float64)).item())

    def _summed(self, values: Tensor) -> Tensor:
        reduced = self.accelerator.reduce(values.to(self.accelerator.device), reduction="sum")
        return reduced.cpu()

    def _halve(self, share: Share) -> None:
        """Raises ProbeError where there is nothing left to halve."""
        micro = min(self.micro, len(share.labels))
        if micro == 1:
            raise ProbeError(
                "out of memory with one image at a time: give a smaller model or --image-size"
            )
        self.micro = -(-micro // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._say(
            f"out of memory: {self.micro} images per forward pass from here on, "
            f"{-(-len(share.labels) // self.micro)} of them per update"
        )


@contextmanager
def random_numbers_kept(device: torch.device) -> Iterator[None]:
    """The caller's random numbers are put back at the end."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield

"""Loss, top-1 and top-5 of a network on labelled images: means over images, summed in float64."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from probe.data import iterate
from probe.errors import ProbeError
from probe.records import Progress, silent
from probe.training.augment import Transform
from probe.training.images import Labelled
from probe.training.network import logits_of

TOP5_FROM = 6  # classes: with five, every answer is among the first five


@dataclass(frozen=True)
class Scores:
    """Of a network on images. Percentages; top5 None under six classes."""

    loss: float
    top1: float
    top5: float | None
    images: int
    seconds: float
    skipped: list[str]  # images that could not be read, with reasons


class Validation:
    """The same images, transformed alike, every time."""

    def __init__(
        self,
        data: Labelled,
        transform: Transform,
        batch_size: int,
        workers: int,
        accelerator: Any = None,
        autocast: Callable[[], Any] = nullcontext,
    ) -> None:
        self._accelerator = accelerator
        self._autocast = autocast if accelerator is None else accelerator.autocast
        rank, of = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
        self._places = np.arange(rank, len(data), of)
        self._source = data.source if of == 1 else data.source.part(self._places)
        self._labels = torch.from_numpy(data.labels)
        self._transform, self._batch, self._workers = transform, batch_size, workers
        self.images = len(data)

    def __call__(
        self, module: nn.Module, progress: Progress = silent, stage: str = "validation"
    ) -> Scores:
        """Of the module in evaluation mode; its mode is put back."""
        began, sums = time.perf_counter(), torch.zeros(4, dtype=torch.float64)
        skipped: list[str] = []
        device = next(module.parameters()).device
        classes = 0
        with evaluating(module):
            batches = iterate(self._source, self._transform, self._batch, self._workers)
            for batch in batches:
                skipped += [f"{name}: {reason}" for name, reason in batch.skipped]
                if not len(batch):
                    continue
                assert isinstance(batch.inputs, Tensor)
                labels = self._labels[self._places[batch.indices]].to(device)
                logits = self._logits(module, batch.inputs.to(device))
                classes = logits.shape[1]
                sums += counts(logits, labels)
                progress(stage, int(sums[3]), len(self._places))
        sums = self._over_processes(sums, device)
        loss, top1, top5, images = sums.tolist()
        if not images:
            raise ProbeError("no validation image could be used")
        return Scores(
            loss / images,
            100 * top1 / images,
            100 * top5 / images if classes >= TOP5_FROM else None,
            int(images),
            time.perf_counter() - began,
            skipped,
        )

    def _logits(self, module: nn.Module, images: Tensor) -> Tensor:
        with self._autocast():
            return logits_of(module(images)).float()

    def _over_processes(self, sums: Tensor, device: torch.device) -> Tensor:
        if self._accelerator is None or self._accelerator.num_processes == 1:
            return sums
        total: Tensor = self._accelerator.reduce(sums.to(device), reduction="sum")
        return total.cpu()


def counts(logits: Tensor, labels: Tensor) -> Tensor:
    """(4,) float64 on the host: sum of the losses, right answers, right among five, images."""
    loss = F.cross_entropy(logits.double(), labels, reduction="sum")
    first = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    values = [loss, first[:, 0].sum(), first.sum()]
    host = torch.stack([value.double() for value in values]).cpu()
    return torch.cat([host, torch.tensor([float(len(labels))], dtype=torch.float64)])


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    before = {each: each.training for each in module.modules()}
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for each, mode in before.items():
            each.training = mode

"""What is measured of a network after each epoch: its scores, and what its normalizers hold."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from probe.data import load_batch
from probe.models.reading.input_spread import input_spread
from probe.models.reading.layers import norm_modules
from probe.records import Progress
from probe.training.augment import Transform
from probe.training.images import Labelled
from probe.training.norm_values import norm_rows
from probe.training.validation import Validation, evaluating

SPREAD_IMAGES = 64  # on which the spread of the norms' inputs is taken, the same each time


class Survey:
    """Rows of both tables for a network, always on the same images."""

    def __init__(
        self, validation: Validation, data: Labelled, transform: Transform, accelerator: Any
    ) -> None:
        self._validation, self._accelerator = validation, accelerator
        places = torch.linspace(0, len(data) - 1, min(SPREAD_IMAGES, len(data))).long().tolist()
        batch = load_batch(data.source, transform, places)
        assert isinstance(batch.inputs, Tensor)
        self._images = batch.inputs

    def __call__(
        self, module: nn.Module, epoch: int, progress: Progress
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Columns of the table of epochs, rows of the table of norms."""
        scores = asdict(self._validation(module, progress))
        row = {"val_loss": scores["loss"], "top1": scores["top1"], "top5": scores["top5"]}
        row["eval_seconds"] = scores["seconds"]
        return row, self._norms(module, epoch)

    def _norms(self, module: nn.Module, epoch: int) -> list[dict[str, Any]]:
        if next(norm_modules(module), None) is None:
            return []
        device = next(module.parameters()).device
        with evaluating(module), input_spread(module) as spreads:
            for images in self._images.split(16):
                with self._accelerator.autocast():
                    module(images.to(device))
        std = {name: each.std for name, each in spreads.items() if each.count}
        return norm_rows(module, epoch, std)

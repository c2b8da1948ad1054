"""A planned batch that does not fit the memory of the GPU goes through the model in parts.

The statistics are sums over images, so those of the parts are those of the batch, to rounding.
What layers leave on a device counts at the end of a pass, so that one that failed has counted
nothing there. Layers on the CPU count at once; those that had seen the whole batch before the
memory ran out are not shown its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from probe.jobs.inputs import Inputs

Key = tuple[str, int]  # of a call in a forward pass: module path, number
# runs (batch, layer calls to leave out) and notes in the set those that count, even if it fails
Pass = Callable[[Inputs, frozenset[Key], set[Key]], None]


class Halving:
    """Runs planned batches, in parts from the size on at which the memory did not suffice.

    halving = Halving(module)
    halving.run(batch, one_pass)
    halving.largest, halving.batches  # images per pass; planned batches that ran in parts
    """

    def __init__(self, module: nn.Module) -> None:
        self.largest: int | None = None
        self.batches = 0
        self._by_batch = _on_batch_statistics(module)

    def run(self, batch: Inputs, one_pass: Pass) -> None:
        """Raises torch.OutOfMemoryError where smaller parts are none, or would be other images to
        the model.
        """
        self._run(batch, one_pass, frozenset())
        self.batches += self.largest is not None and len(batch) > self.largest

    def merge(self, other: Halving) -> None:
        self.batches += other.batches
        sizes = [size for size in (self.largest, other.largest) if size is not None]
        self.largest = min(sizes, default=None)

    def facts(self) -> dict[str, int]:
        """For the manifest; empty where every batch fitted."""
        if self.largest is None:
            return {}
        return {"images_per_pass": self.largest, "batches": self.batches}

    def restore(self, facts: dict[str, int]) -> None:
        self.largest, self.batches = facts.get("images_per_pass"), facts.get("batches", 0)

    def _run(self, batch: Inputs, one_pass: Pass, seen: frozenset[Key]) -> None:
        if self.largest is None or len(batch) <= self.largest:
            now: set[Key] = set()
            try:
                one_pass(batch, seen, now)
                return
            except torch.OutOfMemoryError as error:
                if why := self._no_parts(batch):
                    error.add_note(why)
                    raise
            # outside of the block, whose error keeps the activations alive
            torch.cuda.empty_cache()
            seen |= now
            self.largest = max(1, len(batch) // 2)
        for part in parts(batch, self.largest):
            self._run(part, one_pass, seen)

    def _no_parts(self, batch: Inputs) -> str:
        if len(batch) < 2:
            return "one image alone does not fit"
        if self._by_batch:
            return (
                "the model is in train mode, or normalizes over the images of a batch: parts of "
                "it would give other numbers"
            )
        if not _can_be_cut(batch):
            return "not all that the model is given has a row per image, so that no part can be cut"
        return ""


def halved(halving: Halving) -> dict[str, dict[str, int]]:
    """The manifest's entry `halved`, where the memory ran out."""
    return {"halved": facts} if (facts := halving.facts()) else {}


def parts(batch: Inputs, size: int) -> Iterator[Inputs]:
    """Consecutive parts of at most `size` images."""
    for start in range(0, len(batch), size):
        rows = slice(start, start + size)
        yield replace(
            batch,
            args=tuple(_cut(value, rows) for value in batch.args),
            kwargs={name: _cut(value, rows) for name, value in batch.kwargs.items()},
            images=batch.images[rows],
            groups=batch.groups[rows],
            valid=None if batch.valid is None else batch.valid[rows],
        )


def _cut(value: Any, rows: slice) -> Any:
    return value[rows] if isinstance(value, Tensor | list | tuple) else value


def _can_be_cut(batch: Inputs) -> bool:
    values = (*batch.args, *batch.kwargs.values())
    return all(_has_rows(value, len(batch)) for value in values)


def _has_rows(value: Any, images: int) -> bool:
    """Has it a row per image, or none at all?"""
    if isinstance(value, Tensor):
        return value.ndim > 0 and len(value) == images
    if isinstance(value, list | tuple):
        return len(value) == images
    return value is None or isinstance(value, bool | int | float | str)


def _on_batch_statistics(module: nn.Module) -> bool:
    """Does a pass depend on which images stand together?"""
    return any(
        child.training or (isinstance(child, _NormBase) and child.running_mean is None)
        for child in module.modules()
        if not isinstance(child, nn.modules.instancenorm._InstanceNorm) or child.training
    )


__all__ = ["Halving", "halved", "parts"]

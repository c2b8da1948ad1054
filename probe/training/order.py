"""Which images an update sees, and how they are shared out: an epoch is one order of all images,
cut into batches of all processes; a batch is cut into shares of processes and these into
micro-batches.

Shares are symmetric about the middle of the batch (0, 1, ..., 6, 7 in two parts: 0 1 6 7 and
2 3 4 5), so that the partner that mixup takes, the batch read backwards, is in the same part: a
batch is mixed alike however it is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from probe.training.randomness import Stream, derived

Indices = NDArray[np.int64]


class Batching(Protocol):
    """Which images each update sees: an Order, or anything like it."""

    @property
    def seed(self) -> int: ...

    @property
    def steps(self) -> int: ...

    @property
    def images_per_epoch(self) -> int: ...

    def batch(self, epoch: int, step: int) -> Indices: ...


@dataclass(frozen=True)
class Order:
    """How the epochs of a training run through its images."""

    images: int
    batch_size: int  # over all processes
    drop_last: bool
    repeats: int  # repeated augmentation; 0: none
    seed: int

    @property
    def steps(self) -> int:
        """Updates of an epoch."""
        length = len(self.of(0))
        return length // self.batch_size if self.drop_last else -(-length // self.batch_size)

    @property
    def images_per_epoch(self) -> int:
        """That updates see, repeats among them."""
        length = len(self.of(0))
        return self.steps * self.batch_size if self.drop_last else length

    def of(self, epoch: int) -> Indices:
        """(N, 2) image and copy, in the order of epoch `epoch` (from 0)."""
        return _order(self, epoch)

    def batch(self, epoch: int, step: int) -> Indices:
        """(B, 2) of update `step` (from 0) of the epoch."""
        return self.of(epoch)[step * self.batch_size : (step + 1) * self.batch_size]


@lru_cache(maxsize=2)
def _order(order: Order, epoch: int) -> Indices:
    seed = derived(order.seed, Stream.ORDER, epoch)
    if order.repeats > 1:
        return _repeated(order, seed)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randperm(order.images, generator=generator).numpy()
    return np.stack([images, np.zeros_like(images)], axis=1)


def _repeated(order: Order, seed: int) -> Indices:
    """timm's repeated augmentation for one process: as many images as without it, each so many
    times in a row.
    """
    from timm.data.distributed_sampler import RepeatAugSampler

    sampler = RepeatAugSampler(
        range(order.images), num_replicas=1, rank=0, num_repeats=order.repeats
    )
    sampler.set_epoch(seed)
    images = np.fromiter(sampler, dtype=np.int64)
    return np.stack([images, np.arange(len(images)) % order.repeats], axis=1)


def parts(length: int, number: int) -> list[Indices]:
    """Places 0 .. length - 1 in `number` symmetric parts, empty ones at the end where there are
    fewer pairs.
    """
    pairs = np.arange((length + 1) // 2)
    each = -(-len(pairs) // number)
    return [_both_sides(pairs[i * each : (i + 1) * each], length) for i in range(number)]


def _both_sides(pairs: Indices, length: int) -> Indices:
    mirrored = length - 1 - pairs[::-1]
    if len(pairs) and mirrored[0] == pairs[-1]:  # the middle of an odd length
        mirrored = mirrored[1:]
    return np.concatenate([pairs, mirrored])

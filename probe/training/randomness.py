"""Random numbers as pure functions of where a training stands, so that nothing about them is saved:
an image's augmentation depends on (seed, epoch, image, copy), dropout and mixing on (seed, update).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What a number is drawn for: streams of one seed are independent."""

    AUGMENT = 0
    ORDER = 1
    MIX = 2
    DROPOUT = 3
    HEAD = 4
    HELD_OUT = 5
    NORMS = 6


def derived(seed: int, stream: Stream, *place: int) -> int:
    """A seed of 32 bits that is as good as independent of those of every other place."""
    return int(np.random.SeedSequence((seed, int(stream), *place)).generate_state(1)[0])


def start(seed: int, stream: Stream, *place: int) -> None:
    """All three global generators of the CPU, on which timm and torchvision draw, start at this
    place.
    """
    first = derived(seed, stream, *place)
    random.seed(first)
    np.random.seed(first)  # noqa: NPY002
    torch.default_generator.manual_seed(first)


@contextmanager
def seeded(seed: int, stream: Stream, *place: int) -> Iterator[None]:
    """The same, and at the end of the block they are put back."""
    with kept():
        start(seed, stream, *place)
        yield


@contextmanager
def kept() -> Iterator[None]:
    """What the block draws, the caller does not miss. Takes 0.1 ms."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])

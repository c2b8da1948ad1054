"""The images that a distillation learns from, and those that it is judged on; without labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probe.data import ImageSource, open_images
from probe.training.distilling.asked import Asked
from probe.training.images import Labelled
from probe.training.randomness import Stream, derived

HELD_OUT, HELD_OUT_SHARE, FEW = 256, 8, 64  # images at most, one in so many, none of fewer images


@dataclass(frozen=True)
class Images:
    """What is learned from, and what it is judged on; the same where there are few."""

    training: Labelled
    held_out: ImageSource
    apart: bool


def open_unlabelled(asked: Asked) -> Images:
    """The images of --data; their labels, where there are some, are not read."""
    source = open_images(asked.data, asked.images, asked.seed)
    number = len(source)
    held = min(HELD_OUT, number // HELD_OUT_SHARE) if number >= FEW else 0
    generator = np.random.default_rng(derived(asked.seed, Stream.HELD_OUT))
    order = generator.permutation(number)
    judged = np.sort(order[:held] if held else order[:HELD_OUT])
    learned = np.sort(order[held:])
    training = source.part(learned)
    nothing = np.zeros(len(learned), dtype=np.int64)
    return Images(Labelled("", training, nothing, ()), source.part(judged), held > 0)

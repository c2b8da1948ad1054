"""Which images the updates of a distillation see: the images in random orders, one after the other,
cut into batches; a round is so many updates, however many images there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probe.training.order import Indices, Order

ROUNDS = 20  # between which the network is looked at


@dataclass(frozen=True)
class Draws:
    """As probe.training.order.Order, with rounds in place of epochs."""

    images: int
    batch_size: int
    steps: int  # updates of a round
    seed: int

    @property
    def images_per_epoch(self) -> int:
        """That the updates of a round see."""
        return self.steps * self.batch_size

    def batch(self, epoch: int, step: int) -> Indices:
        """(B, 2) of update `step` of round `epoch`, both from 0: image, and how often it was there
        before, which gives it another augmentation each time.
        """
        first = (epoch * self.steps + step) * self.batch_size
        places = np.arange(first, first + self.batch_size)
        order = Order(self.images, self.images, False, 0, self.seed)
        turns, within = np.divmod(places, self.images)
        rows = [order.of(int(turn))[place, 0] for turn, place in zip(turns, within, strict=True)]
        return np.stack([np.asarray(rows, dtype=np.int64), turns], axis=1)


def rounds_of(steps: int) -> tuple[int, int]:
    """Rounds, and updates of each, with at least so many updates together."""
    each = max(1, steps // ROUNDS)
    return -(-steps // each), each

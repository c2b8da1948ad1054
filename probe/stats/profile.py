"""The profile: a streaming histogram over the input that also sums what the layer made of it.

Cells (kinds, GROUPS, BINS, SUMS): per token kind, jackknife group of the image and bin of the input (`probe.bins`) the count and the
sums of x, z, z^2, x^2 and x z (x the input, z normalized). With these second moments a least-squares fit on the cells is a fit on
every element: the curve is only taken as straight inside a bin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probe.bins import BINS, PER_SIGN, SUMS
from probe.records import GROUPS
from probe.stats.records import Summary


class Profile:
    """Streaming cells of one layer; prefix tokens are kept apart once any was seen."""

    def __init__(self) -> None:
        self.cells = np.zeros((1, GROUPS, BINS, SUMS))

    def update(self, summary: Summary, groups: NDArray[np.int64]) -> None:
        """Add a batch; groups (B,) is the jackknife group of each image."""
        self._grow(summary.cells.shape[1])
        for group, cells in zip(groups, summary.cells, strict=True):
            self.cells[: len(cells), group] += cells

    def merge(self, other: Profile) -> None:
        self._grow(len(other.cells))
        self.cells[: len(other.cells)] += other.cells

    def _grow(self, kinds: int) -> None:
        if kinds > len(self.cells):
            self.cells = np.concatenate([self.cells, np.zeros((kinds - len(self.cells), *self.cells.shape[1:]))])

    def rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Non-empty cells: token kind, group, bin (each (n,)) and values (n, SUMS)."""
        kind, group, index = np.nonzero(self.cells[..., 0])
        return kind, group, index - PER_SIGN, self.cells[kind, group, index]

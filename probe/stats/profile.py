"""The profile: a streaming histogram over the input that also sums what the layer made of it.

Cells (kinds, GROUPS, BINS, 4): per token kind, jackknife group of the image and bin of the input (`probe.bins`) the count, the sum of
input, the sum and the sum of squares of normalized. A weighted least-squares fit on the cell means is a fit on every element.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probe.bins import BINS, PER_SIGN
from probe.records import GROUPS
from probe.stats.records import Summary


class Profile:
    """Streaming cells of one layer; prefix tokens are kept apart once any was seen."""

    def __init__(self) -> None:
        self.cells = np.zeros((1, GROUPS, BINS, 4))

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
        """Non-empty cells: token kind, group, bin (each (n,)) and values (n, 4)."""
        kind, group, index = np.nonzero(self.cells[..., 0])
        return kind, group, index - PER_SIGN, self.cells[kind, group, index]

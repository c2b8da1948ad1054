"""The profile: a streaming histogram over the input that also sums what the layer made of it.

Per token kind, jackknife group of the image and bin of the input (`probe.bins`): the count and the
sums of x, z, z^2, x^2 and x z (x the input, z normalized; `CellSum`). With these second moments a
least-squares fit on the cells is a fit on every element: the curve is only taken as straight inside
a bin. A layer whose channels are fixed lines has no profile: their moments say all of its map.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from probe.bins import PER_SIGN, folded
from probe.records import GROUPS, TOKENS
from probe.stats.state import State, fitting
from probe.stats.sums import CELL_WIDTH, CellSum, no_cells


class Profile:
    """Streaming cells (kinds, GROUPS, CELLS, CELL_WIDTH) of one layer; prefix tokens are kept apart
    once any was seen.
    """

    def __init__(self) -> None:
        self._cells = no_cells(1, GROUPS)
        self._waiting: Tensor | None = None  # (kinds, GROUPS, CELLS, CellSum), on a device

    @property
    def cells(self) -> NDArray[np.float64]:
        """Everything that was added; what waits on a device is fetched first."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting.cpu().numpy(), None
            self.grow(len(waiting))
            self._cells[: len(waiting), ..., : len(CellSum)] += waiting
        return self._cells

    def make_room(self, cells: Tensor) -> None:
        """For the `add_later` of such cells, which then takes no memory of their device."""
        kinds, groups = cells.shape[:2]
        if not groups:
            return
        if self._waiting is None or len(self._waiting) < kinds:
            smaller = self._waiting
            self._waiting = cells.new_zeros(kinds, GROUPS, *cells.shape[2:])
            if smaller is not None:
                self._waiting[: len(smaller)] += smaller

    def add_later(self, cells: Tensor, groups: Tensor) -> None:
        """Add cells (kinds, G, CELLS, CellSum) float64 of the image groups (G,), both on a device;
        they stay there until somebody reads, so that a batch does not wait for megabytes.
        """
        self.make_room(cells)
        if self._waiting is not None and len(groups):
            self._waiting[: len(cells)].index_add_(1, groups, cells)

    def __getstate__(self) -> State:
        """What travels lies on the host, and is a tenth of the cells."""
        return self.state()

    def __setstate__(self, state: State) -> None:
        self.restore(state)

    @property
    def sums(self) -> NDArray[np.float64]:
        """The cells without what pads them to a cache line: (kinds, GROUPS, CELLS, CellSum)."""
        return self.cells[..., : len(CellSum)]

    def grow(self, kinds: int) -> None:
        """Make room for `kinds` token kinds."""
        if kinds > len(self._cells):
            smaller, self._cells = self._cells, no_cells(kinds, GROUPS)
            self._cells[: len(smaller)] = smaller

    def add(self, groups: NDArray[np.int64], cells: NDArray[np.float64]) -> None:
        """Add the sums (kinds, G, CELLS, CellSum) of the image groups (G,)."""
        self.grow(len(cells))
        self.sums[: len(cells), groups] += cells

    def merge(self, other: Profile) -> None:
        self.grow(len(other.cells))
        self.cells[: len(other.cells)] += other.cells

    def state(self) -> State:
        """The cells that hold anything, one in ten of them or fewer, by their place."""
        flat = self.cells.reshape(-1, CELL_WIDTH)
        place = np.flatnonzero(flat[:, CellSum.COUNT])
        cells = flat[place, : len(CellSum)]
        return {"kinds": np.array(len(self.cells)), "place": place, "cells": cells}

    def restore(self, state: State) -> None:
        """Raises ValueError or IndexError for a state that is none."""
        kinds = int(state["kinds"])
        if not 1 <= kinds <= len(TOKENS):
            raise ValueError(f"{kinds} kinds of tokens")
        self._cells, self._waiting = no_cells(kinds, GROUPS), None
        place = state["place"]
        flat = self.cells.reshape(-1, CELL_WIDTH)[:, : len(CellSum)]
        flat[place] = fitting(state["cells"], flat[place])

    def rows(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Non-empty cells: token kind, group, bin (each (n,)) and their sums (n, CellSum)."""
        cells = folded(self.sums)
        kind, group, index = np.nonzero(cells[..., CellSum.COUNT])
        return kind, group, index - PER_SIGN, cells[kind, group, index]

"""One batch of one layer on a device: reduced, and the rows and elements of the samples picked out;
and what that is on the host.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from probe.stats import tail_kernels
from probe.stats.batch_summary import BatchSummary, Bounds, Reduced, leaves_some_inside
from probe.stats.device_lookup import picked_elements, picked_rows
from probe.stats.kernels import moments_of_rows
from probe.stats.observed import Observed, PlaneNorm, TokenNorm, is_line
from probe.stats.results import Arrays
from probe.stats.samples import CandidateRows
from probe.stats.tail import ELEMENT
from probe.stats.transfer import to_device


class DeviceBatch:
    """Made in a hook: enqueues what reads x and y, and keeps neither.

        reduced = device_summary.reduce(observed, bounds, most)
        batch = DeviceBatch(observed, reduced, rows, bounds)
        batch.tensors           # small ones, for one transfer with those of other layers
        batch.rest(arrays)      # what a list of candidates that overflowed needs besides
        batch.summary(arrays), batch.columns(arrays), batch.elements(arrays, bounds)

    arrays: the values of the tensors, by the same names.
    """

    def __init__(
        self, observed: Observed, reduced: Reduced, rows: CandidateRows, bounds: Bounds
    ) -> None:
        self.rows, self.images = rows, observed.images
        self.positions, self.prefix_tokens = observed.positions, observed.prefix_tokens
        self.by_plane, self.is_line = observed.by_plane, is_line(observed)
        groups = to_device(reduced.groups, reduced.cells.device)
        self._cells: tuple[Tensor, Tensor] | None = (reduced.cells, groups)
        self._shape = len(observed.images), observed.positions, observed.channels
        self._capacity = reduced.candidates.capacity
        # without bounds all values are candidates, of the next batch too
        self.urgent = observed.x.numel() > self._capacity and not leaves_some_inside(bounds)
        self._norm = observed.norm if isinstance(observed.norm, TokenNorm) else None
        listed, places = picked_elements(observed, reduced), reduced.candidates.places
        self._whole_list = {"places": places, "listed": listed}
        self.tensors: dict[str, Tensor] = {
            "sums": reduced.sums,
            "not_finite": reduced.not_finite,
            "sigmas": reduced.sigmas,
            "count": reduced.candidates.count,
            "places": places[: self._capacity],
            "listed": listed[:, : self._capacity],
        }
        if len(rows.key):
            self.tensors |= picked_rows(observed, rows, with_z=not self.is_line)
        if self.is_line:
            assert isinstance(observed.norm, PlaneNorm)
            norm = observed.norm
            self.tensors |= {"mean": norm.mean[0], "scale": norm.scale[0]}

    def take_cells(self) -> tuple[Tensor, Tensor]:
        """Cells and groups, for the profile; once."""
        assert self._cells is not None
        cells, self._cells = self._cells, None
        return cells

    def _overflows(self, arrays: Arrays) -> bool:
        """Did more candidates come than are listed?"""
        return int(arrays["count"][0]) > self._capacity

    def rest(self, arrays: Arrays) -> dict[str, Tensor]:
        return self._whole_list if self._overflows(arrays) else {}

    def summary(self, arrays: Arrays) -> BatchSummary:
        """As if all images were one."""
        sigmas = None if self._norm is None else arrays["sigmas"]
        return BatchSummary(arrays["sums"][None], int(arrays["not_finite"]), None, sigmas)

    def columns(self, arrays: Arrays) -> list[NDArray]:
        """Of the sampled rows, what a `SampleBuffer` of the layer takes."""
        columns = [arrays[name] for name in ("x", "y", "z") if name in arrays]
        if self._norm is not None and columns:
            columns.append(moments_of_rows(columns[0], self._norm.eps, self._norm.centered))
        return columns

    def elements(self, arrays: Arrays, bounds: Bounds) -> NDArray:
        """ELEMENT records, complete, of the candidates beyond the bounds as they are now, in the
        order of their places: programs end in any order.
        """
        length = None if self._overflows(arrays) else int(arrays["count"][0])
        places, listed = arrays["places"][:length], arrays["listed"][:, :length]
        # of few rows, one may be among the largest and among the smallest of its channel
        every, order = np.unique(places, return_index=True)
        order = order[every >= 0]
        where = np.unravel_index(places[order], self._shape)
        values, channel = listed[0, order], where[2]
        low, high = bounds
        outside = (values > high[channel]) | (values < low[channel])
        elements = np.empty(np.count_nonzero(outside), ELEMENT)
        tail_kernels.note(
            elements, values[outside], *(part[outside] for part in where), self.images
        )
        for name, column in (("normalized", 1), ("output", 2)):
            elements[name] = listed[column, order][outside]
        elements["batch"] = -1  # z and y need no look-up any more
        return elements

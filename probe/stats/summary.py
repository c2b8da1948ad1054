"""Reduce what a layer saw in one batch to small arrays: on the CPU by the numba kernels, elsewhere by torch (`torch_summary`).

Images are the unit of work: each has accumulators of its own, two threads take turns at the images of a batch, and the caller adds the
images up in order. So the numbers do not depend on the number of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from probe.bins import BINS, SUMS
from probe.stats import kernels, torch_summary
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm
from probe.stats.records import Bounds, Collect, Summary, new_sums

CANDIDATES = 1 << 15  # extreme values collected between two tightenings of the bounds; at least one row (plane) must fit


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="probe-stats")


class _Workspace:
    """The cells of one batch, kept between calls because allocating and faulting them in costs more than filling them."""

    def __init__(self) -> None:
        self._memory = np.empty(0)

    def cells(self, *shape: int) -> NDArray[np.float64]:
        size = int(np.prod(shape))
        if self._memory.size < size:
            self._memory = np.empty(size)
        cells = self._memory[:size].reshape(shape)
        cells.fill(0)
        return cells


_workspace = _Workspace()


def _float32(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy()


def summarize(observed: Observed, bounds: Bounds, collect: Collect) -> Summary:
    """Statistics of one batch. Values outside `bounds` (low and high per channel) are handed to `collect`, which tightens the bounds."""
    if observed.x.device.type != "cpu":
        return torch_summary.summarize(observed, bounds, collect)
    if isinstance(observed.norm, PlaneNorm) and (observed.channels_last or observed.valid is not None):
        observed = observed.as_given_rows()
    if isinstance(observed.norm, PlaneNorm):
        return _summarize_planes(observed, bounds, collect)
    return _summarize_rows(observed, bounds, collect)


def _run(task: Callable[[int], int], images: int) -> int:
    """task(image) for every image of the batch; the sum of what they return. This thread and its helpers take the next image in turn."""
    todo = iter(range(images))

    def work() -> int:
        return sum(task(b) for b in todo)

    helpers = min(torch.get_num_threads(), images) - 1
    others = [_pool(helpers).submit(work) for _ in range(helpers)]
    return work() + sum(other.result() for other in others)


def _summarize_planes(observed: Observed, bounds: Bounds, collect: Collect) -> Summary:
    assert isinstance(observed.norm, PlaneNorm)
    x = _float32(observed.x)
    images, channels, size = x.shape
    bits = x.view(np.int32)
    mean, scale = (_float32(t.expand(images, channels)) for t in (observed.norm.mean, observed.norm.scale))
    cells, sums = _workspace.cells(images, 1, BINS, SUMS), new_sums(images, channels)
    flagged = np.zeros((images, channels), np.uint8)
    low, high = bounds

    def task(b: int) -> int:
        return int(kernels.planes(x[b], bits[b], mean[b], scale[b], low, high, cells[b, 0], sums[b], flagged[b]))

    bad = _run(task, images)
    if flagged.any():
        scan = functools.partial(_scan, kernels.scan_planes, capacity=max(CANDIDATES, size), collect=collect)
        for b in np.flatnonzero(flagged.any(axis=1)):
            bounds = scan(x[b], flagged[b], bounds, lambda row, b=b: (np.full(len(row), b), row))
    return Summary(cells, sums, bad, None, None)


def _summarize_rows(observed: Observed, bounds: Bounds, collect: Collect) -> Summary:
    x = _float32(observed.x)
    images, positions, channels = x.shape
    norm = observed.norm
    z = _float32(norm.z).reshape(-1, channels) if isinstance(norm, GivenNorm) else None
    x = x.reshape(-1, channels)
    kinds = np.tile(observed.kinds, images)
    row_of, stops = None, np.arange(1, images + 1) * positions
    if observed.valid is not None:
        kept = np.flatnonzero(observed.valid)
        x, kinds, z = x[kept], kinds[kept], None if z is None else z[kept]
        row_of, stops = np.stack(np.divmod(kept, positions), axis=1), np.cumsum(observed.valid.sum(axis=1))
    starts = np.concatenate([[0], stops[:-1]])
    bits = x.view(np.int32)
    cells, sums = _workspace.cells(images, 1 + int(observed.kinds.any()), BINS, SUMS), new_sums(images, channels)
    means, sigmas = np.full((2, len(x)), np.nan)
    flagged = np.zeros(len(x), np.uint8)
    low, high = bounds

    def task(b: int) -> int:
        part = slice(starts[b], stops[b])
        if isinstance(norm, TokenNorm):
            fit = (norm.eps, norm.centered, kinds[part], low, high, cells[b], sums[b], means[part], sigmas[part], flagged[part])
            return int(kernels.token_rows(x[part], bits[part], *fit))
        assert z is not None
        return int(kernels.given_rows(x[part], bits[part], z[part], kinds[part], low, high, cells[b], sums[b], flagged[part]))

    bad = _run(task, images)
    if flagged.any():

        def place(row: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            image, position = np.divmod(row, positions) if row_of is None else row_of[row].T
            return image, position

        _scan(kernels.scan_rows, x, flagged, bounds, place, capacity=max(CANDIDATES, channels), collect=collect)
    if not isinstance(norm, TokenNorm):
        return Summary(cells, sums, bad, None, None)
    if row_of is not None:
        full = np.full((2, images, positions), np.nan)
        full[:, row_of[:, 0], row_of[:, 1]] = means, sigmas
        means, sigmas = full
    return Summary(cells, sums, bad, means.reshape(images, positions), sigmas.reshape(images, positions))


def _scan(
    kernel: Callable, x: NDArray, flagged: NDArray, bounds: Bounds, place: Callable, capacity: int, collect: Collect
) -> Bounds:
    """Hand the values outside the bounds to `collect`, a buffer at a time; the bounds it returns hold for the rest."""
    values = np.empty(capacity, np.float32)
    rows, channels = np.empty((2, capacity), np.int64)
    start = 0
    while start < len(x):
        count, start = kernel(x, flagged, *bounds, start, values, rows, channels)
        if count:
            image, position = place(rows[:count].astype(np.int64))
            bounds = collect(values[:count].copy(), image, position, channels[:count].astype(np.int64))
    return bounds

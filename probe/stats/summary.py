"""Reduce what a layer saw in one batch: on the CPU by the numba kernels, elsewhere by torch
(`torch_summary`).

The images of one jackknife group are the unit of work: a group has cells of its own and its images
follow in order, so the numbers do not depend on the number of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from probe.stats import kernels, torch_summary
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm
from probe.stats.profile import Profile
from probe.stats.records import Extremes, Summary, new_sums

CANDIDATES = (
    1 << 15
    # extreme values collected between two tightenings of the bounds; at least one row (plane) must
    # fit
)


def summarize(observed: Observed, profile: Profile, extremes: Extremes) -> Summary:
    """Adds a batch to the profile, hands its extreme values to `extremes` and returns the rest."""
    if observed.x.device.type != "cpu":
        return torch_summary.summarize(observed, profile, extremes)
    if isinstance(observed.norm, PlaneNorm) and (
        observed.channels_last or observed.valid is not None
    ):
        observed = observed.as_given_rows()
    if isinstance(observed.norm, PlaneNorm):
        return _summarize_planes(observed, observed.norm, profile, extremes)
    return _summarize_rows(observed, observed.norm, profile, extremes)


def _float32(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy()


def _summarize_planes(
    observed: Observed, norm: PlaneNorm, profile: Profile, extremes: Extremes
) -> Summary:
    x = _float32(observed.x)
    images, channels, size = x.shape
    bits = x.view(np.int32)
    mean, scale = (_float32(t.expand(images, channels)) for t in (norm.mean, norm.scale))
    sums, flagged = new_sums(images, channels), np.zeros((images, channels), np.uint8)
    low, high = extremes.bounds

    def task(b: int, cells: NDArray[np.float64]) -> int:
        return int(
            kernels.planes(
                x[b],
                bits[b],
                mean[b],
                scale[b],
                not norm.fixed,
                low,
                high,
                cells[0],
                sums[b],
                flagged[b],
            )
        )

    bad = _run(task, observed, profile)
    if flagged.any():
        extremes.start(sums)
        low, high = extremes.bounds
        flagged &= (sums[:, 3] > high) | (sums[:, 2] < low)
        for b in np.flatnonzero(flagged.any(axis=1)).tolist():

            def collect(values: NDArray, positions: NDArray, channels: NDArray, b: int = b) -> None:
                extremes.collect(values, np.full(len(values), b), positions, channels)

            _scan(
                kernels.scan_planes,
                x[b],
                flagged[b],
                extremes,
                collect,
                capacity=max(CANDIDATES, size),
            )
    return Summary(sums, bad, None, None)


def _summarize_rows(
    observed: Observed, norm: TokenNorm | GivenNorm, profile: Profile, extremes: Extremes
) -> Summary:
    x = _float32(observed.x)
    images, positions, channels = x.shape
    kept = (
        np.arange(images * positions) if observed.valid is None else np.flatnonzero(observed.valid)
    )
    kinds = np.tile(observed.kinds, images)[kept]
    stops = np.searchsorted(kept, np.arange(1, images + 1) * positions)
    starts = np.concatenate([[0], stops[:-1]])
    x = x.reshape(-1, channels) if observed.valid is None else x.reshape(-1, channels)[kept]
    bits = x.view(np.int32)
    sums, flagged = new_sums(images, channels), np.zeros(len(x), np.uint8)
    means, sigmas = np.full((2, len(x)), np.nan)
    low, high = extremes.bounds
    if isinstance(norm, GivenNorm):
        z = _float32(norm.z).reshape(-1, channels)[
            kept if observed.valid is not None else slice(None)
        ]

        def task(b: int, cells: NDArray[np.float64]) -> int:
            part = slice(starts[b], stops[b])
            return int(
                kernels.given_rows(
                    x[part],
                    bits[part],
                    z[part],
                    kinds[part],
                    low,
                    high,
                    cells,
                    sums[b],
                    flagged[part],
                )
            )
    else:

        def task(b: int, cells: NDArray[np.float64]) -> int:
            part = slice(starts[b], stops[b])
            into = (cells, sums[b], means[part], sigmas[part], flagged[part])
            return int(
                kernels.token_rows(
                    x[part], bits[part], norm.eps, norm.centered, kinds[part], low, high, *into
                )
            )

    bad = _run(task, observed, profile)
    if flagged.any():
        extremes.start(sums)

        def collect(values: NDArray, rows: NDArray, channels: NDArray) -> None:
            image, position = np.divmod(kept[rows], positions)
            extremes.collect(values, image, position, channels)

        _scan(kernels.scan_rows, x, flagged, extremes, collect, capacity=max(CANDIDATES, channels))
    if isinstance(norm, GivenNorm):
        return Summary(sums, bad, None, None)
    every = np.full((2, images * positions), np.nan)
    every[:, kept] = means, sigmas
    return Summary(sums, bad, *every.reshape(2, images, positions))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="probe-stats")


def _run(
    task: Callable[[int, NDArray[np.float64]], int], observed: Observed, profile: Profile
) -> int:
    """task(image, cells of its group) for every image; the sum of what they return.

    This thread and its helpers take the next group in turn: while it waits, torch's own threads
    would still spin.
    """
    kinds = 1 + int(observed.kinds.any())
    profile.grow(kinds)
    cells = {group: profile.cells[:, group] for group in np.unique(observed.groups).tolist()}
    todo = iter([(group, np.flatnonzero(observed.groups == group)) for group in cells])

    def work() -> int:
        return sum(task(int(b), cells[group]) for group, images in todo for b in images)

    helpers = min(torch.get_num_threads(), len(cells)) - 1
    others = [_pool(helpers).submit(work) for _ in range(helpers)]
    return work() + sum(other.result() for other in others)


def _scan(
    kernel: Callable,
    x: NDArray,
    flagged: NDArray,
    extremes: Extremes,
    collect: Callable[..., None],
    capacity: int,
) -> None:
    """Hand the values outside the bounds to `collect`, a buffer at a time; the tighter bounds hold
    for the rest.
    """
    values = np.empty(capacity, np.float32)
    rows, channels = np.empty((2, capacity), np.int64)
    start = 0
    while start < len(x):
        count, start = kernel(x, flagged, *extremes.bounds, start, values, rows, channels)
        if count:
            collect(values[:count], rows[:count], channels[:count])

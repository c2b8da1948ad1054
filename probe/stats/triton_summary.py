"""Reduce what a layer saw in one batch on a CUDA device by Triton kernels. Where Triton is missing,
`torch_summary` does the same in torch.
"""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
import torch
from numpy.typing import NDArray

from probe.stats.batch_summary import BatchSummary, Extremes
from probe.stats.observed import Observed, TokenNorm
from probe.stats.profile import Profile
from probe.stats.sums import ChannelSum
from probe.stats.transfer import to_host
from probe.stats.triton_launch import launch


@functools.cache
def runs_on(device: torch.device) -> bool:
    """Is Triton there, and does it compile for this device? It asks for compute capability 8."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def summarize(observed: Observed, profile: Profile, extremes: Extremes) -> BatchSummary:
    """One batch on the device of its tensors; see `summary.summarize`."""
    reduced = launch(observed, extremes.bounds, extremes.most)
    candidates = reduced.candidates
    sums, not_finite, means, sigmas, count = to_host(
        [
            reduced.sums,
            reduced.not_finite,
            reduced.means,
            reduced.sigmas,
            candidates.count,
        ]
    )
    length = candidates.length(int(count[0]))
    values, places = to_host([part[:length] for part in (candidates.values, candidates.places)])
    # all that takes memory of the device came before: where it runs out, nothing was added
    if len(reduced.groups):
        profile.add_later(reduced.cells, reduced.groups)
    profile.batches += 1
    extremes.start(sums[:, ChannelSum.X_MIN], sums[:, ChannelSum.X_MAX])
    _hand_over(values, places, observed, extremes)
    if isinstance(observed.norm, TokenNorm):
        return BatchSummary(sums, int(not_finite), means, sigmas)
    return BatchSummary(sums, int(not_finite), None, None)


def _hand_over(
    values: NDArray[np.float32], places: NDArray[np.int64], observed: Observed, extremes: Extremes
) -> None:
    """What lies outside of the bounds as they are now, in the order of the places: programs end in
    any order.
    """
    order = np.argsort(places)
    order = order[places[order] >= 0]
    values, places = values[order], places[order]
    image, position, channel = np.unravel_index(
        places, (len(observed.images), observed.positions, observed.channels)
    )
    low, high = extremes.bounds
    outside = (values > high[channel]) | (values < low[channel])
    if outside.any():
        extremes.collect(values[outside], image[outside], position[outside], channel[outside])

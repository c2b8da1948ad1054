"""Reduce what a layer saw in one batch on the device of its tensors: on CUDA by Triton kernels
(`triton_launch`), elsewhere and where Triton is missing by torch (`torch_summary`).
"""

from __future__ import annotations

import functools
import importlib.util

import torch

from probe.stats import torch_summary, triton_launch
from probe.stats.batch_summary import Bounds, Reduced
from probe.stats.observed import Observed


@functools.cache
def runs_on(device: torch.device) -> bool:
    """Is Triton there, and does it compile for this device? It asks for compute capability 8."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def reduce(observed: Observed, bounds: Bounds, most: int) -> Reduced:
    """The reduction of a batch, with candidates for a tail that keeps at most `most` of one channel
    and sign outside of the bounds. By Triton it is enqueued, and nothing waits for the device.
    """
    backend = triton_launch if runs_on(observed.x.device) else torch_summary
    return backend.reduce(observed, bounds, most)

"""The normalized value of single rows and elements of a batch on the host, where it is not computed
for all; `device_lookup` picks them on a device.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from probe.stats import tail_kernels
from probe.stats.batch_summary import BatchSummary
from probe.stats.kernels import moments_of_rows
from probe.stats.observed import (
    GivenNorm,
    Observed,
    PlaneNorm,
    TokenNorm,
    elements_of,
    float32,
    in_place,
    rows_of,
)
from probe.stats.sample_kernels import rows_of_both


def sampled_rows(
    observed: Observed, batch: NDArray[np.int64], position: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Input and output (n, C) of some rows of a batch, float32 on the host."""
    x, y = (in_rows(tensor, observed.channels_last) for tensor in (observed.x, observed.y))
    if x is not None and y is not None:
        both: tuple[NDArray[np.float32], NDArray[np.float32]] = rows_of_both(x, y, batch, position)
        return both
    last = observed.channels_last
    return rows_of(observed.x, batch, position, last), rows_of(observed.y, batch, position, last)


def in_rows(tensor: Tensor, channels_last: bool) -> NDArray[np.float32] | None:
    """(B, P, C) in the memory of the tensor, where it is float32 on the host."""
    values = in_place(tensor)
    return values if values is None or channels_last else values.transpose(0, 2, 1)


def normalized_rows(
    observed: Observed, x: NDArray[np.float32], batch: NDArray, position: NDArray
) -> list[NDArray]:
    """What z (n, C) of some rows of a batch, x (n, C), is made of: z itself; for a TokenNorm, which
    takes less memory, mean, sigma and 1/sqrt(sigma^2 + eps) (n, 3) in float64, see `of_tokens`.
    """
    norm = observed.norm
    if isinstance(norm, GivenNorm):
        return [rows_of(norm.z, batch, position, observed.channels_last)]
    if isinstance(norm, PlaneNorm):
        mean, scale = _planes(norm, len(observed.images))
        with np.errstate(invalid="ignore", over="ignore"):
            return [(x - mean[batch]) * scale[batch]]
    return [moments_of_rows(np.ascontiguousarray(x), norm.eps, norm.centered)]


def _planes(norm: PlaneNorm, images: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and scale (B, C)."""
    mean, scale = (t.expand(images, -1).numpy() for t in (norm.mean, norm.scale))
    return mean, scale


class ElementLookup:
    """Looks up z and y of single elements of a batch; z of a TokenNorm by the means and sigmas of
    its summary.
    """

    def __init__(self, observed: Observed, summary: BatchSummary) -> None:
        self._observed, self._summary = observed, summary

    def fill(self, elements: NDArray) -> None:
        """Write z and y into the ELEMENT records (`probe.stats.tail`) that the batch brought."""
        norm, last = self._observed.norm, self._observed.channels_last
        y = in_rows(self._observed.y, last)
        z = in_rows(norm.z, last) if isinstance(norm, GivenNorm) else None
        if y is None or (z is None and isinstance(norm, GivenNorm)):
            self._fetch(elements)
        elif z is not None:
            tail_kernels.fill_given(elements, y, z)
        elif isinstance(norm, TokenNorm):
            summary = self._summary
            tail_kernels.fill_tokens(elements, y, summary.means, summary.sigmas, norm.eps)
        else:
            assert isinstance(norm, PlaneNorm)
            tail_kernels.fill_planes(elements, y, float32(norm.mean), float32(norm.scale))

    def _fetch(self, elements: NDArray) -> None:
        """The same for tensors of another type: single elements are converted."""
        fresh = np.flatnonzero(elements["batch"] >= 0)
        if len(fresh):
            brought = elements[fresh]
            elements["normalized"][fresh], elements["output"][fresh] = self._looked_up(brought)
            elements["batch"][fresh] = -1

    def _looked_up(self, elements: NDArray) -> tuple[NDArray, NDArray[np.float32]]:
        """z and y of ELEMENT records."""
        norm, observed = self._observed.norm, self._observed
        batch, position, channel = (
            elements[name].astype(np.int64) for name in ("batch", "position", "channel")
        )
        y = elements_of(observed.y, batch, position, channel, observed.channels_last)
        if isinstance(norm, GivenNorm):
            return elements_of(norm.z, batch, position, channel, observed.channels_last), y
        x = elements["value"].astype(np.float64)
        if isinstance(norm, PlaneNorm):
            mean, scale = _planes(norm, len(observed.images))
            return (x - mean[batch, channel]) * scale[batch, channel], y
        assert self._summary.means is not None
        assert self._summary.sigmas is not None
        of_token, sigma = (t[batch, position] for t in (self._summary.means, self._summary.sigmas))
        return (x - of_token) / np.sqrt(sigma**2 + norm.eps), y

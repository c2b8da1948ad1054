"""The normalized value of single rows and elements of a batch, where it is not computed for all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probe.stats.batch_summary import BatchSummary
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm, elements_of, rows_of


def of_tokens(x: NDArray[np.float32], tokens: NDArray[np.float64]) -> NDArray[np.float32]:
    """z (n, C) of rows x (n, C) with mean, sigma and 1/sqrt(sigma^2 + eps) (n, 3); NaN in a token
    that holds an infinity, which is counted as not finite.
    """
    with np.errstate(invalid="ignore"):
        z = (x.astype(np.float64) - tokens[:, :1]) * tokens[:, 2:]
    return z.astype(np.float32)


class NormalizedLookup:
    """Looks up z in one batch; for a TokenNorm from the means and sigmas of its summary."""

    def __init__(self, observed: Observed, summary: BatchSummary) -> None:
        self._observed, self._summary = observed, summary

    def rows(
        self, x: NDArray[np.float32], batch: NDArray, position: NDArray
    ) -> list[NDArray[np.float32]]:
        """What z (n, C) of rows x (n, C) is made of: z itself; for a TokenNorm, which takes less
        memory, mean, sigma and 1/sqrt(sigma^2 + eps) (n, 3) in float64, see `of_tokens`.
        """
        norm, observed = self._observed.norm, self._observed
        if isinstance(norm, GivenNorm):
            return [rows_of(norm.z, batch, position, observed.channels_last)]
        if isinstance(norm, PlaneNorm):
            mean, scale = self._planes(norm)
            with np.errstate(invalid="ignore", over="ignore"):
                return [(x - mean[batch]) * scale[batch]]
        return [np.stack(self._tokens(norm, batch, position), axis=1)]

    def elements(self, elements: NDArray) -> tuple[NDArray, NDArray[np.float32]]:
        """z and y of ELEMENT records (`probe.stats.tail`)."""
        norm, observed = self._observed.norm, self._observed
        batch, position, channel = (
            elements[name].astype(np.int64) for name in ("batch", "position", "channel")
        )
        y = elements_of(observed.y, batch, position, channel, observed.channels_last)
        if isinstance(norm, GivenNorm):
            return elements_of(norm.z, batch, position, channel, observed.channels_last), y
        x = elements["value"].astype(np.float64)
        if isinstance(norm, PlaneNorm):
            mean, scale = self._planes(norm)
            return (x - mean[batch, channel]) * scale[batch, channel], y
        token_mean, _, inverse = self._tokens(norm, batch, position)
        return (x - token_mean) * inverse, y

    def _planes(self, norm: PlaneNorm) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and scale (B, C)."""
        images = len(self._observed.images)
        mean, scale = (t.expand(images, -1).cpu().numpy() for t in (norm.mean, norm.scale))
        return mean, scale

    def _tokens(
        self, norm: TokenNorm, batch: NDArray, position: NDArray
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Mean, sigma and 1/sqrt(sigma^2 + eps) (n,) of rows."""
        assert self._summary.means is not None
        assert self._summary.sigmas is not None
        mean, sigma = self._summary.means[batch, position], self._summary.sigmas[batch, position]
        return mean, sigma, 1 / np.sqrt(sigma**2 + norm.eps)

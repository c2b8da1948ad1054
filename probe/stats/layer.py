"""Everything that is kept of one layer: moments, profile, token statistics, sampled rows and tail,
behind one accumulator.

`update` takes what the layer saw in one batch, `merge` another accumulator of the same layer; the
order of either does not matter beyond rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probe.records import Plan
from probe.stats.moments import Moments
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm, elements_of, rows_of
from probe.stats.profile import Profile
from probe.stats.records import Bounds, Summary
from probe.stats.samples import RowChoice, Rows, SampleBuffer
from probe.stats.summary import summarize
from probe.stats.tail import ELEMENT, Tail


class TokenScale:
    """Sums over tokens of sigma, sigma^2 and 1/sigma (LayerNorm, RMSNorm)."""

    def __init__(self) -> None:
        self.sums = np.zeros(4)  # tokens, sigma, sigma^2, 1/sigma

    def update(self, sigmas: NDArray[np.float64]) -> None:
        sigma = sigmas[np.isfinite(sigmas) & (sigmas > 0)]
        self.sums += len(sigma), sigma.sum(), (sigma**2).sum(), (1 / sigma).sum()

    def read(self) -> tuple[float, float, float]:
        """Mean of 1/sigma, mean of sigma, coefficient of variation of sigma; NaN where no token was
        seen.
        """
        n, total, squares, inverse = self.sums
        if n == 0:
            return np.nan, np.nan, np.nan
        mean = total / n
        return inverse / n, mean, np.sqrt(max(squares / n - mean**2, 0)) / mean


class LayerStatistics:
    """The accumulators of one layer with `channels` channels."""

    def __init__(self, plan: Plan, channels: int) -> None:
        self.moments = Moments(channels)
        self.profile = Profile()
        self.scale = TokenScale()
        self.uniform = SampleBuffer(plan.samples)
        self.prefix = SampleBuffer(plan.prefix)
        self.tail = Tail(channels, plan.tail_per_sign, plan.tail_per_channel)
        self.not_finite = 0
        self.positions = 0  # per image, the largest seen
        self.prefix_tokens = 0
        # mean and scale (C,) of a fixed PlaneNorm: there z is a line of x
        self.line: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def update(self, observed: Observed, choice: RowChoice) -> None:
        """Add one batch. Reads the tensors now and keeps no reference to them."""
        summary = summarize(observed, self.profile, _Collector(self.tail, observed.images))
        self.moments.update(summary)
        if summary.sigmas is not None:
            self.scale.update(summary.sigmas)
        self.not_finite += summary.not_finite
        self.positions = max(self.positions, observed.positions)
        self.prefix_tokens = max(self.prefix_tokens, int(observed.kinds.sum()))
        normalized = _Normalized(observed, summary)
        self.tail.resolve(normalized.elements)
        for buffer, rows in zip(
            (self.uniform, self.prefix), choice(observed.images, observed.valid), strict=True
        ):
            self._sample(buffer, rows, observed, normalized)

    def _sample(
        self, buffer: SampleBuffer, rows: Rows, observed: Observed, normalized: _Normalized
    ) -> None:
        kept = rows.key <= buffer.below
        batch, position = rows.batch[kept], rows.position[kept]
        if not len(batch):
            return
        x, y = (
            rows_of(tensor, batch, position, observed.channels_last)
            for tensor in (observed.x, observed.y)
        )
        columns = [x, y]
        if isinstance(observed.norm, PlaneNorm) and observed.norm.fixed:
            self.line = observed.norm.mean[0].cpu().numpy(), observed.norm.scale[0].cpu().numpy()
        else:
            columns += normalized.rows(x, batch, position)
        buffer.add(rows.key[kept], observed.images[batch], position, columns)

    def settle(self) -> None:
        """Bring samples and tail into their final form; reading them changes nothing after that, so
        several threads may.
        """
        for buffer in (self.uniform, self.prefix):
            buffer.settle()
        self.tail.elements()

    def merge(self, other: LayerStatistics) -> None:
        self.moments.merge(other.moments)
        self.profile.merge(other.profile)
        self.scale.sums += other.scale.sums
        self.uniform.merge(other.uniform)
        self.prefix.merge(other.prefix)
        self.tail.merge(other.tail)
        self.not_finite += other.not_finite
        self.positions = max(self.positions, other.positions)
        self.prefix_tokens = max(self.prefix_tokens, other.prefix_tokens)
        self.line = other.line if self.line is None else self.line

    def rows(self, buffer: SampleBuffer) -> SampledRows:
        """The rows kept in `buffer` (`uniform` or `prefix`)."""
        image, position, columns = buffer.rows()
        if not columns:
            empty = np.empty((0, len(self.moments.count)), np.float32)
            return SampledRows(image, position, empty, empty, empty, None, None)
        x, y, *rest = columns
        if self.line is not None:
            mean, scale = self.line
            return SampledRows(image, position, x, (x - mean) * scale, y, None, None)
        z, *token = rest
        return SampledRows(image, position, x, z, y, *(token if token else (None, None)))


@dataclass(frozen=True)
class SampledRows:
    """Sampled rows of one layer, sorted by (image, position): n rows with all C channels each."""

    image: NDArray[np.int32]  # (n,)
    position: NDArray[np.int32]
    input: NDArray[np.float32]  # (n, C)
    normalized: NDArray[np.float32]
    output: NDArray[np.float32]
    mean: NDArray[np.float32] | None  # (n,) of the token, LayerNorm and RMSNorm only
    sigma: NDArray[np.float32] | None


class _Collector:
    """Puts the extreme values of one batch into a tail."""

    def __init__(self, tail: Tail, images: NDArray[np.int64]) -> None:
        self._tail, self._images = tail, images

    @property
    def bounds(self) -> Bounds:
        return self._tail.bounds

    def start(self, sums: NDArray[np.float64]) -> None:
        self._tail.start(sums[:, 2], sums[:, 3])

    def collect(self, values: NDArray, image: NDArray, position: NDArray, channel: NDArray) -> None:
        elements = np.zeros(len(values), ELEMENT)
        elements["value"], elements["batch"], elements["position"], elements["channel"] = (
            values,
            image,
            position,
            channel,
        )
        elements["image"] = self._images[image]
        self._tail.add(elements)


class _Normalized:
    """Looks up z of single elements and of rows of one batch."""

    def __init__(self, observed: Observed, summary: Summary) -> None:
        self._observed, self._summary = observed, summary

    def _token(self, batch: NDArray, position: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        norm = self._observed.norm
        assert isinstance(norm, TokenNorm)
        assert self._summary.means is not None
        assert self._summary.sigmas is not None
        mean, sigma = self._summary.means[batch, position], self._summary.sigmas[batch, position]
        return mean, sigma, 1 / np.sqrt(sigma**2 + norm.eps)

    def rows(
        self, x: NDArray[np.float32], batch: NDArray, position: NDArray
    ) -> list[NDArray[np.float32]]:
        """z (n, C), for TokenNorm also mean (n,) and sigma (n,)."""
        norm, observed = self._observed.norm, self._observed
        if isinstance(norm, GivenNorm):
            return [rows_of(norm.z, batch, position, observed.channels_last)]
        if isinstance(norm, PlaneNorm):
            mean, scale = (
                tensor.expand(len(observed.images), -1).cpu().numpy()[batch]
                for tensor in (norm.mean, norm.scale)
            )
            return [(x - mean) * scale]
        token_mean, sigma, inverse = self._token(batch, position)
        z = (x.astype(np.float64) - token_mean[:, None]) * inverse[:, None]
        return [z.astype(np.float32), token_mean.astype(np.float32), sigma.astype(np.float32)]

    def elements(self, elements: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
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
            mean, scale = (
                tensor.expand(len(observed.images), -1).cpu().numpy()[batch, channel]
                for tensor in (norm.mean, norm.scale)
            )
            return (x - mean) * scale, y
        token_mean, _, inverse = self._token(batch, position)
        return (x - token_mean) * inverse, y

"""Everything that is kept of one layer: moments, profile, token statistics, sampled rows and tail,
behind one accumulator.

`update` takes what the layer saw in one batch, `merge` another accumulator of the same layer; the
order of either does not matter beyond rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from probe.records import Plan
from probe.stats import tail_kernels
from probe.stats.batch_summary import BatchSummary, Bounds
from probe.stats.device_batch import DeviceBatch
from probe.stats.device_summary import reduce
from probe.stats.lookup import ElementLookup, normalized_rows, sampled_rows
from probe.stats.moments import Moments
from probe.stats.observed import Observed, PlaneNorm, is_line
from probe.stats.profile import Profile
from probe.stats.results import Arrays, Results, count_now
from probe.stats.sample_kernels import of_tokens
from probe.stats.samples import CandidateRows, RowChoice, SampleBuffer
from probe.stats.state import State, fitting, put_under, taken_from
from probe.stats.summary import summarize
from probe.stats.tail import ELEMENT, Tail
from probe.stats.token_scale import TokenScale


class LayerStatistics:
    """The accumulators of one layer with `channels` channels.

        statistics = LayerStatistics(plan, channels=384)
        choice = RowChoice(plan, observed.kinds)  # layers of equal grid share one
        statistics.update(observed, choice)  # once a batch
        statistics.merge(another)  # of the same layer, from other batches
        statistics.moments.input.mean, statistics.rows(statistics.uniform).normalized

    Picklable; what travels is what was kept.
    """

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

    def update(self, observed: Observed, choice: RowChoice, results: Results | None = None) -> None:
        """Add one batch. Reads the tensors now and keeps no reference to them.

        On a device that is enqueued alone, and counted by `results` once they have fetched it;
        without them it is waited for.
        """
        if not observed.x.is_cpu:
            pending = _Pending(self, self._on_device(observed, choice))
            count_now(pending) if results is None else results.add(pending)
            return
        self.tail.planes = observed.by_plane
        if self.line is None and is_line(observed):
            assert isinstance(observed.norm, PlaneNorm)
            self.line = observed.norm.mean[0].cpu().numpy(), observed.norm.scale[0].cpu().numpy()
        collector = _TailCollector(self.tail, observed.images)
        sample = functools.partial(self._sample, observed, choice)
        summary = summarize(observed, self.profile, collector, meanwhile=sample)
        self.tail.resolve(ElementLookup(observed, summary).fill)
        self._add(summary, observed)

    def _add(self, summary: BatchSummary, batch: Observed | DeviceBatch) -> None:
        self.moments.update(summary)
        if summary.sigmas is not None:
            self.scale.update(summary.sigmas)
        self.not_finite += summary.not_finite
        self.positions = max(self.positions, batch.positions)
        self.prefix_tokens = max(self.prefix_tokens, batch.prefix_tokens)

    def _on_device(self, observed: Observed, choice: RowChoice) -> DeviceBatch:
        """All that takes memory of the device, and nothing that counts."""
        below = self.uniform.below, self.prefix.below
        rows = choice(observed.images, observed.valid, below)
        rows = rows.fewest(self.uniform.size, self.prefix.size)
        bounds = self.tail.bounds
        reduced = reduce(observed, bounds, self.tail.most)
        self.profile.make_room(reduced.cells)
        return DeviceBatch(observed, reduced, rows, bounds)

    def _add_from_device(self, batch: DeviceBatch, arrays: Arrays) -> None:
        self.tail.planes = batch.by_plane
        if self.line is None and batch.is_line:
            self.line = arrays["mean"].copy(), arrays["scale"].copy()
        self._keep(batch.rows, batch.images, batch.columns(arrays))
        elements = batch.elements(arrays, self.tail.bounds)
        if len(elements):
            self.tail.add(elements)
        self._add(batch.summary(arrays), batch)

    def _sample(self, observed: Observed, choice: RowChoice) -> None:
        """The rows of both draws, read together."""
        below = self.uniform.below, self.prefix.below
        rows = choice(observed.images, observed.valid, below)
        if not len(rows.key):
            return
        x, y = sampled_rows(observed, rows.batch, rows.position)
        z = []
        if self.line is None:
            z = normalized_rows(observed, x, rows.batch, rows.position)
        self._keep(rows, observed.images, [x, y, *z])

    def _keep(
        self, rows: CandidateRows, images: NDArray[np.int64], columns: Sequence[NDArray]
    ) -> None:
        """Columns (n, ...) of the rows, each in its draw."""
        of_row = images[rows.batch]
        first, then = slice(rows.uniform), slice(rows.uniform, None)
        for buffer, part in ((self.uniform, first), (self.prefix, then)):
            own = [column[part] for column in columns]
            buffer.add(rows.key[part], of_row[part], rows.position[part], own)

    def settle(self) -> None:
        """Bring samples and tail into their final form; reading them changes nothing after that, so
        several threads may.
        """
        for buffer in (self.uniform, self.prefix):
            buffer.rows()
        self.tail.elements()

    def merge(self, other: LayerStatistics) -> None:
        """Take over what another accumulator of the layer saw of other batches."""
        self.moments.merge(other.moments)
        self.profile.merge(other.profile)
        self.scale.merge(other.scale)
        self.uniform.merge(other.uniform)
        self.prefix.merge(other.prefix)
        self.tail.merge(other.tail)
        self.not_finite += other.not_finite
        self.positions = max(self.positions, other.positions)
        self.prefix_tokens = max(self.prefix_tokens, other.prefix_tokens)
        self.line = other.line if self.line is None else self.line

    def state(self) -> State:
        """All that was kept, as arrays."""
        counts = (self.not_finite, self.positions, self.prefix_tokens)
        state: State = {"counts": np.array(counts, np.int64)}
        for name in _PARTS:
            state |= put_under(name, getattr(self, name).state())
        if self.line is not None:
            state |= {"mean": self.line[0], "scale": self.line[1]}
        return state

    def restore(self, state: State) -> None:
        """Become what `state` was taken of. Raises KeyError, ValueError or IndexError for one of
        another layer or plan.
        """
        for name in _PARTS:
            getattr(self, name).restore(taken_from(name, state))
        self.not_finite, self.positions, self.prefix_tokens = state["counts"].tolist()
        if "mean" in state:
            like = np.empty(len(self.moments.count), np.float32)
            self.line = fitting(state["mean"], like), fitting(state["scale"], like)

    def rows(self, buffer: SampleBuffer) -> SampledRows:
        """The rows kept in `buffer` (`uniform` or `prefix`)."""
        image, position, columns = buffer.rows()
        if not columns:
            empty = np.empty((0, len(self.moments.count)), np.float32)
            return SampledRows(image, position, empty, empty, lambda: empty, None, None)
        x, y, *rest = columns
        if self.line is not None:
            mean, scale = self.line
            return SampledRows(image, position, x, y, lambda: (x - mean) * scale, None, None)
        if rest[0].dtype != np.float64:
            return SampledRows(image, position, x, y, lambda: rest[0], None, None)
        token_mean, sigma, _ = rest[0].astype(np.float32).T
        return SampledRows(image, position, x, y, lambda: of_tokens(x, rest[0]), token_mean, sigma)


@dataclass(frozen=True)
class SampledRows:
    """Sampled rows of one layer, sorted by (image, position): n rows with all C channels each."""

    image: NDArray[np.int32]  # (n,)
    position: NDArray[np.int32]
    input: NDArray[np.float32]  # (n, C)
    output: NDArray[np.float32]
    normalize: Callable[[], NDArray[np.float32]]
    mean: NDArray[np.float32] | None  # (n,) of the token, LayerNorm and RMSNorm only
    sigma: NDArray[np.float32] | None

    @cached_property
    def normalized(self) -> NDArray[np.float32]:
        """(n, C), computed where it is read."""
        return self.normalize()


class _Pending:
    """A batch of one layer that was enqueued on its device."""

    def __init__(self, statistics: LayerStatistics, batch: DeviceBatch) -> None:
        self._statistics, self._batch = statistics, batch
        self.tensors, self.rest, self.urgent = batch.tensors, batch.rest, batch.urgent

    def keep(self) -> None:
        self._statistics.profile.add_later(*self._batch.take_cells())

    def count(self, arrays: Arrays) -> None:
        self._statistics._add_from_device(self._batch, arrays)


_PARTS = ("moments", "profile", "scale", "uniform", "prefix", "tail")


class _TailCollector:
    """Puts the extreme values of one batch into a tail."""

    def __init__(self, tail: Tail, images: NDArray[np.int64]) -> None:
        self._tail, self._images = tail, images

    @property
    def bounds(self) -> Bounds:
        return self._tail.bounds

    @property
    def parts(self) -> int:
        return self._tail.parts

    def start(self, low: NDArray[np.floating], high: NDArray[np.floating]) -> None:
        self._tail.start(low, high)

    def collect(self, values: NDArray, image: NDArray, position: NDArray, channel: NDArray) -> None:
        elements = np.empty(len(values), ELEMENT)
        tail_kernels.note(elements, values, image, position, channel, self._images)
        self._tail.add(elements)

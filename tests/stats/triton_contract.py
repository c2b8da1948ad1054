"""What the Triton kernels promise beyond the contract of all backends, in Triton's interpreter.

Not collected by its name: `test_triton.py` runs it in a process whose TRITON_INTERPRET is set
before Triton is imported.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from probe.bins import PER_SIGN, bin_of, folded
from probe.records import Plan
from probe.stats import torch_summary, triton_launch
from probe.stats.layer import LayerStatistics
from probe.stats.observed import GivenNorm, PlaneNorm
from probe.stats.profile import Profile
from probe.stats.results import Results
from probe.stats.samples import RowChoice
from probe.stats.sums import CellSum, ChannelSum
from support.observations import (
    NORMS,
    as_on_a_device,
    assert_same_samples,
    by_device,
    observed,
    tokens,
)


class Collected:
    """Extremes with fixed bounds that keeps what it is handed, by (image, position, channel)."""

    def __init__(self, low, high, most=50):
        self.bounds, self.most, self.parts = (low, high), most, 0
        self.values = {}

    def start(self, *_):
        pass

    def collect(self, values, image, position, channel):
        self.values |= dict(zip(zip(image, position, channel, strict=True), values, strict=True))


def nothing_outside(channels):
    ends = np.full(channels, np.inf, np.float32)
    return Collected(-ends, ends)


by_triton = by_device(triton_launch.reduce)


def both(o, extremes=lambda channels: nothing_outside(channels)):
    """Summary, profile and extremes by Triton and by plain torch."""
    for reduce in (triton_launch.reduce, torch_summary.reduce):
        profile, collected = Profile(), extremes(o.channels)
        yield by_device(reduce)(o, profile, collected), profile, collected


def converted(o, convert):
    """The observation with x, y and a given z as `convert` makes them."""
    norm = GivenNorm(convert(o.norm.z)) if isinstance(o.norm, GivenNorm) else o.norm
    return replace(o, x=convert(o.x), y=convert(o.y), norm=norm)


def strided(t):
    """The same values, every other element of a wider tensor, first axes turned."""
    wide = torch.full((t.shape[1], t.shape[0], 2 * t.shape[2]), torch.nan, dtype=t.dtype)
    wide[..., ::2] = t.transpose(0, 1)
    return wide.transpose(0, 1)[..., ::2]


LAYOUTS = {
    "bfloat16": lambda t: t.bfloat16(),
    "float16": lambda t: t.half(),
    "strided": strided,
    "transposed": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
}


def assert_equal(left, right):
    for a, b in zip(left[:2], right[:2], strict=True):
        if isinstance(a, Profile):
            counts = [p.sums[..., CellSum.COUNT] for p in (a, b)]
            np.testing.assert_array_equal(*counts)
            np.testing.assert_allclose(a.sums, b.sums, rtol=1e-6, atol=1e-6)
            continue
        np.testing.assert_allclose(a.sums, b.sums, rtol=2e-7, atol=1e-6)
        assert a.not_finite == b.not_finite
        for name in ("means", "sigmas"):
            one, other = getattr(a, name), getattr(b, name)
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_dtype_and_layout_is_read_as_it_is(layout, norm):
    o = converted(observed(tokens(2, 7, 12), norm), LAYOUTS[layout])
    assert_equal(*both(o))


@pytest.mark.parametrize("norm", NORMS)
def test_masks_infinities_and_several_images_of_a_group_agree_with_plain_torch(norm):
    x = tokens(7, 5, 8)
    x[0, 2, 3], x[1, 4, 0], x[2, 0, 0], x[3, 1, 1] = torch.nan, torch.inf, -torch.inf, 3e38
    valid = np.ones((7, 5), bool)
    valid[1, 3:], valid[4] = False, False
    o = replace(observed(x, norm, valid=valid), groups=np.array([3, 3, 3, 3, 3, 3, 11]))
    assert_equal(*both(o))


@pytest.mark.parametrize("norm", ["token", "planes"])
def test_the_cut_of_the_work_changes_no_cell(norm, monkeypatch):
    o = observed(tokens(2, 9, 12), norm)
    profiles, summaries = [], []
    for tile, programs in ((1 << 10, 512), (32, 1), (64, 6)):
        monkeypatch.setattr(triton_launch, "TILE", tile)
        monkeypatch.setattr(triton_launch, "PROGRAMS", programs)
        profile = Profile()
        summaries.append(by_triton(o, profile, nothing_outside(12)).sums)
        profiles.append(profile.sums)
    for profile, sums in zip(profiles[1:], summaries[1:], strict=True):
        if norm == "token":  # whole numbers
            np.testing.assert_array_equal(profile, profiles[0])
        np.testing.assert_allclose(profile, profiles[0], rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(sums, summaries[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", ["token", "planes", "lines", "given"])
@pytest.mark.parametrize(("mean", "sigma"), [(1000, 1), (-300, 0.1), (0, 1e-3)])
def test_means_and_variances_hold_far_from_zero(mean, sigma, norm):
    rng = torch.Generator().manual_seed(1)
    o = observed(mean + sigma * torch.randn(4, 40, 6, generator=rng), norm)
    sums = by_triton(o, Profile(), nothing_outside(6)).sums.sum(axis=0)
    for total, squares, values in (
        (ChannelSum.X, ChannelSum.XX, exact_x(o)),
        (ChannelSum.Z, ChannelSum.ZZ, exact_z(o)),
    ):
        got = sums[total] / sums[ChannelSum.COUNT]
        var = sums[squares] / sums[ChannelSum.COUNT] - got**2
        np.testing.assert_allclose(got, values.mean(axis=(0, 1)), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(var, values.var(axis=(0, 1)), rtol=1e-6, atol=1e-20)


def exact_x(o):
    """(B, P, C) float64."""
    return o.as_given_rows().x.double().numpy()


def exact_z(o):
    """(B, P, C) by the formula in float64, of a given z its own values."""
    x, norm = exact_x(o), o.norm
    if isinstance(norm, GivenNorm):
        return norm.z.double().numpy()
    if isinstance(norm, PlaneNorm):
        mean, scale = (t.double().numpy()[:, None] for t in (norm.mean, norm.scale))
        return (x - mean) * scale
    difference = x - x.mean(-1, keepdims=True) * norm.centered
    return difference / np.sqrt((difference**2).mean(-1, keepdims=True) + norm.eps)


def test_cells_hold_the_sums_of_float64_to_nine_digits():
    o = observed(tokens(6, 8, 16), "token", prefix=0)
    profile = Profile()
    by_triton(o, profile, nothing_outside(16))
    x, z = exact_x(o), exact_z(o)
    index = bin_of(o.x.numpy()).ravel() + PER_SIGN
    cells = folded(profile.sums[0]).sum(axis=0)
    columns = {
        CellSum.X: x,
        CellSum.Z: z,
        CellSum.XX: x * x,
        CellSum.ZZ: z * z,
        CellSum.XZ: x * z,
        CellSum.COUNT: np.ones_like(x),
    }
    for column, values in columns.items():
        expected = np.bincount(index, values.ravel(), len(cells))
        np.testing.assert_allclose(cells[:, column], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_values_outside_of_the_bounds_are_collected(norm):
    x = tokens(3, 9, 12)
    x[1, 2, 3], x[0, 1, 1] = torch.nan, torch.inf

    def bounded(channels):
        return Collected(
            np.linspace(-1, 0, channels, dtype=np.float32),
            np.linspace(0.2, 1, channels, dtype=np.float32),
        )

    left, right = both(observed(x, norm), bounded)
    assert left[2].values
    assert left[2].values == right[2].values


@pytest.mark.parametrize("norm", NORMS)
def test_where_the_list_is_too_short_the_farthest_of_each_channel_are_collected(norm, monkeypatch):
    monkeypatch.setattr(triton_launch, "CANDIDATES", 10)
    x = tokens(3, 9, 5)
    x[1, 2, 3], x[0, 1, 1] = torch.nan, torch.inf
    valid = np.ones((3, 9), bool)
    valid[2, 4:] = False
    o = observed(x, norm, valid=valid if norm != "planes" else None)

    def unbounded(channels):
        ends = np.full(channels, np.inf, np.float32)
        return Collected(ends, -ends, most=4)

    left, right = both(o, unbounded)
    every = right[2].values
    assert len(left[2].values) > 10
    assert left[2].values.items() <= every.items()
    for channel in range(5):
        kept, whole = (
            np.sort([v for (_, _, c), v in values.items() if c == channel])
            for values in (left[2].values, every)
        )
        # ties among the four: exact zeros of channel 2
        np.testing.assert_array_equal(kept[:4], whole[:4])
        np.testing.assert_array_equal(kept[-4:], whole[-4:])
        assert len(kept) <= 8


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_counted_a_pass_later_is_what_the_cpu_counts(norm, monkeypatch):
    monkeypatch.setattr(triton_launch, "CANDIDATES", 100)
    batches = [observed(tokens(3, 9, 12, seed=i), norm, first=3 * i) for i in range(4)]
    plan = Plan(images=12, samples=20, tail=60)
    expected, statistics = (LayerStatistics(plan, 12) for _ in range(2))
    choice, results = RowChoice(plan, batches[0].kinds), Results()
    for batch in batches:
        expected.update(batch, choice)
    as_on_a_device(triton_launch.reduce, monkeypatch)
    for batch in batches:
        with results.of_pass():
            statistics.update(batch, choice, results)
    results.settle()
    assert_same_samples(statistics, expected)
    np.testing.assert_allclose(statistics.moments.sums, expected.moments.sums, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(statistics.profile.sums, expected.profile.sums, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(statistics.scale.read(), expected.scale.read(), rtol=1e-12)

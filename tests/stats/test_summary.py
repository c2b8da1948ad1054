"""The reduction of one batch: exact against float64, and the same from both backends."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from probe.bins import BINS, PER_SIGN, bin_of, folded
from probe.records import GROUPS, Plan
from probe.stats import summary, torch_summary, triton_launch
from probe.stats.layer import LayerStatistics
from probe.stats.profile import Profile
from probe.stats.samples import RowChoice
from probe.stats.sums import INPUT_ROWS, NORMALIZED_ROWS, CellSum, ChannelSum
from support.observations import NORMS, as_on_a_device, by_device, observed, tokens

DEVICES = {"torch": torch_summary.reduce}
if os.environ.get("TRITON_INTERPRET") == "1":  # test_triton.py runs this file so
    DEVICES["triton"] = triton_launch.reduce
BACKENDS = {"numba": summary.summarize} | {
    name: by_device(reduce) for name, reduce in DEVICES.items()
}


OVER_IMAGES = {
    ChannelSum.X_MIN: np.min,
    ChannelSum.X_MAX: np.max,
    ChannelSum.Z_MIN: np.min,
    ChannelSum.Z_MAX: np.max,
}


class NoTail:
    """Extremes that nothing lies beyond."""

    most, parts = 50, 0

    def __init__(self, channels):
        self.bounds = np.full(channels, -np.inf, np.float32), np.full(channels, np.inf, np.float32)

    def start(self, *_):
        pass


def reduced(backend, o):
    """Summary and profile of one observation, the tail aside."""
    profile = Profile()
    return BACKENDS[backend](o, profile, NoTail(o.channels)), profile


def reference(o):
    """x and z (B, P, C) in float64."""
    o_rows = o.as_given_rows()
    x = o_rows.x.double().numpy()
    if hasattr(o_rows.norm, "z"):
        return x, o_rows.norm.z.double().numpy()
    mean = x.mean(-1, keepdims=True) if o.norm.centered else 0.0
    return x, (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + o.norm.eps)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_cells_hold_count_and_sums_of_every_bin(backend, norm):
    o = observed(tokens(3, 10, 12), norm)
    x, z = reference(o)
    cells = folded(reduced(backend, o)[1].sums)
    expected = np.zeros((1 + int(o.kinds.any()), GROUPS, BINS, len(CellSum)))
    index = bin_of(x) + PER_SIGN
    for image in range(3):
        for kind in range(len(expected)):
            chosen = o.kinds == kind
            bins, xs, zs = (
                index[image, chosen].ravel(),
                x[image, chosen].ravel(),
                z[image, chosen].ravel(),
            )
            values = {
                CellSum.COUNT: np.ones_like(xs),
                CellSum.X: xs,
                CellSum.Z: zs,
                CellSum.ZZ: zs**2,
                CellSum.XX: xs**2,
                CellSum.XZ: xs * zs,
            }
            for column, value in values.items():
                expected[kind, image, :, column] = np.bincount(bins, value, BINS)
    if norm == "lines":  # each channel is one line, and its moments say all of it
        assert not cells.any()
        return
    np.testing.assert_allclose(cells, expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_are_those_of_every_channel(backend, norm):
    o = observed(tokens(3, 10, 12), norm)
    x, z = reference(o)
    sums = reduced(backend, o)[0].sums
    expected = {
        ChannelSum.X: x.sum(1),
        ChannelSum.XX: (x**2).sum(1),
        ChannelSum.X_MIN: x.min(1),
        ChannelSum.X_MAX: x.max(1),
        ChannelSum.Z: z.sum(1),
        ChannelSum.ZZ: (z**2).sum(1),
        ChannelSum.Z_MIN: z.min(1),
        ChannelSum.Z_MAX: z.max(1),
        ChannelSum.COUNT: np.full((3, 12), 10.0),
    }
    if backend != "numba":  # devices have added up the images
        expected = {
            row: OVER_IMAGES.get(row, np.sum)(v, axis=0)[None] for row, v in expected.items()
        }
    assert sums.shape == (len(expected[ChannelSum.X]), len(expected), 12)
    for row, values in expected.items():
        np.testing.assert_allclose(sums[:, row], values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", [4, 7])
def test_sums_of_many_channels_are_those_of_each(positions):
    o = observed(tokens(2, positions, 530), "token")  # more than are added at a time
    x, z = reference(o)
    sums = reduced("numba", o)[0].sums
    for values, rows in ((x, INPUT_ROWS), (z, NORMALIZED_ROWS)):
        expected = values.sum(1), (values**2).sum(1), values.min(1), values.max(1)
        for row, each in zip(rows, expected, strict=True):
            np.testing.assert_allclose(sums[:, row], each, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", ["token", "planes"])
def test_what_is_to_be_done_meanwhile_is_done_once(norm):
    o, calls = observed(tokens(3, 10, 12), norm), []
    summary.summarize(o, Profile(), NoTail(12), meanwhile=lambda: calls.append("here"))
    assert calls == ["here"]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_and_non_finite_elements_enter_no_sum(backend, norm):
    x = tokens(2, 6, 8)
    x[0, 2, 3], x[1, 4, 0] = np.nan, np.inf
    valid = np.ones((2, 6), bool)
    valid[1, 5] = False
    got, profile = reduced(backend, observed(x, norm, valid=valid))
    # a token with a NaN has no mean and sigma
    assert got.not_finite == (16 if norm in ("token", "rms") else 2)
    in_bins = 0 if norm == "lines" else 11 * 8 - got.not_finite
    assert profile.sums[..., CellSum.COUNT].sum() == in_bins
    assert got.sums[:, ChannelSum.COUNT].sum() == 11 * 8 - got.not_finite
    assert np.isfinite(profile.sums).all()


@pytest.mark.parametrize("norm", ["token", "rms"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_token_statistics_are_mean_and_biased_sigma(backend, norm):
    o = observed(tokens(2, 5, 16), norm)
    got, _ = reduced(backend, o)
    x = o.x.double().numpy()
    mean = x.mean(-1) if norm == "token" else np.zeros((2, 5))
    np.testing.assert_allclose(got.means, mean, atol=1e-12)
    np.testing.assert_allclose(
        got.sigmas, np.sqrt(((x - mean[..., None]) ** 2).mean(-1)), rtol=1e-12
    )


def gather(backend, batches, monkeypatch):
    """The statistics of several batches, all reduced by one backend."""
    if backend != "numba":
        as_on_a_device(DEVICES[backend], monkeypatch)
    plan = Plan(images=sum(len(b.images) for b in batches), samples=20, tail=60)
    statistics = LayerStatistics(plan, batches[0].channels)
    choice = RowChoice(plan, batches[0].kinds)
    for batch in batches:
        statistics.update(batch, choice)
    return statistics


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("backend", DEVICES)
def test_all_backends_keep_the_same(backend, norm, monkeypatch):
    batches = [observed(tokens(3, 30, 12, seed=i), norm, first=3 * i) for i in range(3)]
    a, b = (gather(name, batches, monkeypatch) for name in ("numba", backend))
    np.testing.assert_allclose(a.scale.read(), b.scale.read(), rtol=1e-12)
    np.testing.assert_allclose(a.moments.sums, b.moments.sums, rtol=1e-6, atol=1e-6)
    left, right = a.profile.sums, b.profile.sums
    np.testing.assert_array_equal(left[..., CellSum.COUNT], right[..., CellSum.COUNT])
    np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-6)
    for name in ("image", "position", "channel", "value"):
        np.testing.assert_array_equal(a.tail.elements()[name], b.tail.elements()[name])
    np.testing.assert_array_equal(a.tail.elements()["output"], b.tail.elements()["output"])
    left, right = (each.tail.elements()["normalized"] for each in (a, b))
    np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-6)
    for buffers in ((a.uniform, b.uniform), (a.prefix, b.prefix)):
        left, right = a.rows(buffers[0]), b.rows(buffers[1])
        assert len(left.input) or buffers[0] is a.prefix
        for name in ("image", "position", "input", "output", "normalized"):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_beyond_the_exponents_fall_into_the_end_bins(backend):
    x = tokens(1, 4, 6)
    x[0, 0] = torch.tensor([1e-30, -1e-30, 0.0, 1e20, -1e20, 65536.0])
    cells = folded(reduced(backend, observed(x, "given", prefix=0))[1].sums)[0, 0]
    count_and_sum = [CellSum.COUNT, CellSum.X]
    assert cells[PER_SIGN, CellSum.COUNT] == 3 + int((x[0, 1:] == 0).sum())
    assert cells[-1, count_and_sum].tolist() == [2, pytest.approx(1e20 + 65536, rel=1e-7)]
    assert cells[0, count_and_sum].tolist() == [1, pytest.approx(-1e20, rel=1e-7)]


@pytest.mark.parametrize("norm", ["token", "planes"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_no_bit(threads, norm, monkeypatch):
    o = observed(tokens(20, 30, 12), norm)  # groups 0 to 3 hold two images
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    expected, profile = reduced("numba", o)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    got, other = reduced("numba", o)
    assert np.array_equal(other.sums, profile.sums)
    assert np.array_equal(got.sums, expected.sums)

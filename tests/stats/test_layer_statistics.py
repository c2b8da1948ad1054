"""The accumulators of a layer: exact, and the same however the images are dealt out."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from probe.records import Plan
from probe.stats.layer import LayerStatistics
from probe.stats.observed import TokenNorm
from probe.stats.samples import RowChoice
from support.observations import NORMS, observed, reference_z, tokens

PLAN = Plan(images=16, samples=30, tail=80)


def update(batches):
    statistics = LayerStatistics(PLAN, batches[0].channels)
    choice = RowChoice(PLAN, batches[0].kinds)
    for batch in batches:
        statistics.update(batch, choice)
    return statistics


def test_moments_are_exact():
    x = tokens(16, 30, 12) + 50  # a mean far from zero
    z = reference_z(x, TokenNorm(1e-6, True)).numpy().reshape(-1, 12)
    moments = update([observed(x[i : i + 4], "token", first=i) for i in range(0, 16, 4)]).moments
    x = x.double().numpy().reshape(-1, 12)
    assert (moments.count == 480).all()
    for spread, values in ((moments.input, x), (moments.normalized, z)):
        np.testing.assert_allclose(spread.mean, values.mean(0), atol=1e-6 * values.std(0).min())
        np.testing.assert_allclose(spread.var, values.var(0), rtol=1e-6)
        np.testing.assert_allclose(spread.min, values.min(0), atol=1e-6)
        np.testing.assert_allclose(spread.max, values.max(0), atol=1e-6)


def test_a_constant_channel_has_variance_zero():
    x = tokens(4, 10, 6)
    x[..., 4] = 0.1
    assert update([observed(x, "given")]).moments.input.var[4] == 0


@pytest.mark.parametrize("norm", NORMS)
def test_merging_in_another_order_gives_the_same_to_rounding(norm):
    x = tokens(16, 30, 12)
    batches = [observed(x[i : i + 4], norm, first=i) for i in range(0, 16, 4)]
    whole, parts = update(batches), [update([batch]) for batch in batches[::-1]]
    for part in parts[1:]:
        parts[0].merge(part)
    np.testing.assert_allclose(parts[0].moments.sums, whole.moments.sums, rtol=1e-12)
    np.testing.assert_allclose(parts[0].profile.sums, whole.profile.sums, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(astuple(parts[0].scale), astuple(whole.scale), rtol=1e-12)


def test_token_scale_reads_mean_inverse_sigma_and_variation():
    x = tokens(16, 30, 12)
    sigma = x.double().numpy().std(-1).ravel()
    got = update([observed(x, "token")]).scale.read()
    np.testing.assert_allclose(
        got, ((1 / sigma).mean(), sigma.mean(), sigma.std() / sigma.mean()), rtol=1e-12
    )

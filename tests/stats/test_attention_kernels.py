"""The kernel of attention statistics against loops in float64, key by key."""

from __future__ import annotations

import math

import numpy as np
import pytest

from probe.stats.attention_kernels import add_rows


def by_loops(scores: np.ndarray, distances: np.ndarray, prefix: int) -> np.ndarray:
    """(5,) of scores (L, S) of one head."""
    sums = np.zeros(5)
    for query, row in enumerate(scores.astype(np.float64)):
        patch = row[prefix : prefix + distances.shape[1]]
        if patch.max() == -math.inf:
            continue
        total = sum(math.exp(s - row.max()) for s in row)
        shares = [math.exp(s - row.max()) / total for s in row]
        seen = [math.exp(s - patch.max()) for s in patch]
        distance = sum(e * d for e, d in zip(seen, distances[query], strict=True)) / sum(seen)
        mass = sum(shares[prefix : prefix + len(patch)])
        entropy = -sum(p * math.log(p) for p in shares if p > 0)
        sums += [1, distance, distance * mass, 1 - mass, entropy]
    return sums


def by_kernel(scores: np.ndarray, distances: np.ndarray, prefix: int) -> np.ndarray:
    sums = np.zeros((len(scores), 5))
    add_rows(scores, distances.astype(np.float32), prefix, sums)
    return sums


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("patches", [1, 3, 70])
@pytest.mark.parametrize("behind", [0, 2])
@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_the_kernel_is_a_loop_over_the_keys(prefix, patches, behind, scale) -> None:
    generator = np.random.default_rng(0)
    scores = scale * generator.standard_normal((2, 4, prefix + patches + behind), np.float32)
    distances = 100 * generator.random((4, patches))
    expected = [by_loops(head, distances, prefix) for head in scores]
    np.testing.assert_allclose(by_kernel(scores, distances, prefix), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("masked", [-math.inf, float(np.finfo(np.float32).min)])
def test_masked_keys_count_for_nothing(masked: float) -> None:
    generator = np.random.default_rng(1)
    scores = generator.standard_normal((3, 6, 8), np.float32)
    distances = generator.random((6, 6))
    scores[generator.random(scores.shape) < 0.4] = masked
    scores[0, 0] = scores[1, 1, 1:7] = masked  # nothing to see; the other tokens alone
    scores[2, 2, [0, 7]] = masked  # the patches alone
    finite = np.where(scores == masked, -math.inf, scores)
    expected = [by_loops(head, distances, 1) for head in finite]
    np.testing.assert_allclose(by_kernel(scores, distances, 1), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf])
@pytest.mark.parametrize("key", [0, 3, 7])
@pytest.mark.parametrize("others", [0.0, -math.inf])
def test_what_is_not_finite_stays_in_sight(value: float, key: int, others: float) -> None:
    scores = np.full((1, 2, 8), others, np.float32)
    scores[0, 1, key] = value
    scores[0, 1, 4] = 1.0
    assert np.isnan(by_kernel(scores, np.ones((2, 6)), 1)).any()

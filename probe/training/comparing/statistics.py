"""Mean, standard deviation and paired differences over seeds.

Cells of one seed have the same start, data order and augmentation, so that a difference between two
norms is taken seed by seed: what a seed does to both of them drops out. The interval is that of
Student's t for the mean of the n differences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Spread(NamedTuple):
    """Of n values; std None for one (n - 1 in the denominator)."""

    n: int
    mean: float | None
    std: float | None


class Difference(NamedTuple):
    """Mean of n paired differences with its 95 % interval; none for one pair."""

    n: int
    mean: float | None
    low: float | None
    high: float | None


def spread(values: Mapping[int, float]) -> Spread:
    """values: by seed."""
    numbers = np.array(list(values.values()), dtype=np.float64)
    if not numbers.size:
        return Spread(0, None, None)
    std = float(numbers.std(ddof=1)) if numbers.size > 1 else None
    return Spread(numbers.size, float(numbers.mean()), std)


def paired_difference(
    values: Mapping[int, float], reference: Mapping[int, float], level: float = LEVEL
) -> Difference:
    """values - reference over the seeds that both have:

    d = mean d_s, d -+ t(n-1, (1 + level) / 2) std(d_s) / sqrt(n)
    """
    both = sorted(values.keys() & reference.keys())
    of_pairs = spread({seed: values[seed] - reference[seed] for seed in both})
    if of_pairs.std is None or of_pairs.mean is None:
        return Difference(of_pairs.n, of_pairs.mean, None, None)
    quantile = float(stats.t.ppf((1 + level) / 2, of_pairs.n - 1))
    half = quantile * of_pairs.std / math.sqrt(of_pairs.n)
    return Difference(of_pairs.n, of_pairs.mean, of_pairs.mean - half, of_pairs.mean + half)

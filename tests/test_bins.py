"""Profile bins: the bin of a value and the edges of a bin agree."""

from __future__ import annotations

import numpy as np

from probe.bins import PER_SIGN, bin_of, edges

RNG = np.random.default_rng(0)


def test_every_value_lies_between_the_edges_of_its_bin():
    x = (RNG.standard_cauchy(20000) * np.exp(RNG.normal(0, 4, 20000))).astype(np.float32)
    x = x[np.abs(x) < 2**16]
    lower, upper = edges(bin_of(x))
    assert ((lower <= x) & (x <= upper)).all()


def test_bins_are_about_three_percent_wide():
    lower, upper = edges(np.arange(1, PER_SIGN + 1))
    assert ((upper / lower - 1) <= 1 / 32 + 1e-12).all()


def test_bins_are_symmetric_and_touch():
    lower, upper = edges(np.arange(-PER_SIGN, PER_SIGN + 1))
    np.testing.assert_array_equal(upper[:-1], lower[1:])
    np.testing.assert_array_equal(-upper[::-1], lower)


def test_tiny_and_huge_values_fall_into_the_end_bins():
    assert bin_of([0.0, -0.0, 1e-30, -1e-6]).tolist() == [0, 0, 0, 0]
    assert bin_of([1e30, -1e30, np.finfo(np.float32).max]).tolist() == [
        PER_SIGN,
        -PER_SIGN,
        PER_SIGN,
    ]

"""Maps in bins: reading the table, and shares and medians that cut through bins."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probe.curves import FAMILIES, BinnedMap, beyond_linear, median_abs, saturation, share_outside
from probe.errors import UsageError
from support.curve_maps import in_bins, normal_inputs, profile_rows


def test_from_frame_gives_back_the_sums_of_the_table() -> None:
    x = normal_inputs(5000)
    binned = in_bins(x, np.tanh(x))
    read = BinnedMap.from_frame(profile_rows(binned), binned.min_x, binned.max_x)
    for name in ("bin", "count", "sum_x", "sum_z", "sum_zz", "sum_xx", "sum_xz"):
        np.testing.assert_array_equal(getattr(read, name), getattr(binned, name))
    assert (read.min_x, read.max_x, read.tokens) == (binned.min_x, binned.max_x, "all")


def test_tokens_choose_rows_add_up_and_narrow_the_range() -> None:
    patch, prefix = (
        in_bins(normal_inputs(3000), normal_inputs(3000)),
        in_bins(normal_inputs(500, 1, 100), normal_inputs(500, 2)),
    )
    rows = pd.concat([profile_rows(patch), profile_rows(prefix, "prefix")])
    low, high = min(patch.min_x, prefix.min_x), max(patch.max_x, prefix.max_x)
    parts = {
        name: BinnedMap.from_frame(rows, low, high, name) for name in ("patch", "prefix", "all")
    }
    assert [parts[name].total.sum() for name in parts] == [3000, 500, 3500]
    assert parts["patch"].tokens == "patch"
    assert parts["prefix"].min_x == low
    assert patch.min_x * 1.04 <= parts["patch"].min_x <= patch.min_x
    assert patch.max_x <= parts["patch"].max_x <= patch.max_x * 1.04
    with pytest.raises(UsageError, match="tokens 'cls' is unknown; known: all, patch, prefix"):
        BinnedMap.from_frame(rows, low, high, "cls")


def test_an_empty_table_is_an_empty_map() -> None:
    binned = BinnedMap.from_frame(
        profile_rows(in_bins(normal_inputs(50), normal_inputs(50))), -1.0, 1.0, "prefix"
    )
    assert binned.count.shape == (16, 0)
    assert share_outside(binned, 1.0, 1.0) == 0
    assert np.isnan(median_abs(binned))


@pytest.mark.parametrize("shift", [0.0, 0.7, -1.2])
@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.0])
def test_saturation_is_the_share_of_elements_beyond_two(alpha: float, shift: float) -> None:
    x = normal_inputs(40_000)
    assert saturation(in_bins(x, x), alpha, shift) == pytest.approx(
        np.mean(np.abs(alpha * x + shift) > 2), abs=6e-4
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_beyond_linear_is_where_the_slope_is_under_half_the_central_one(name: str) -> None:
    x, family = normal_inputs(40_000), FAMILIES[name]
    steep = family.derivative(1.3 * x) < family.slope_at_zero / 2
    assert beyond_linear(in_bins(x, x), 1.3, family=name) == pytest.approx(np.mean(steep), abs=6e-4)


def test_shares_count_an_element_at_the_edge_of_the_range_once() -> None:
    binned = in_bins(np.array([-3.0, 1.0, 1.0, 3.0]), np.zeros(4))
    assert share_outside(binned, 1.0, 2.0) == 0.5
    assert share_outside(binned, 1.0, 3.5) == 0.0
    assert share_outside(binned, 100.0, 2.0) == 1.0


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_median_abs_is_within_a_fraction_of_a_bin(offset: float) -> None:
    x = (normal_inputs(40_001) + offset).astype(np.float32).astype(float)
    assert median_abs(in_bins(x, x)) == pytest.approx(np.median(np.abs(x)), rel=3e-3)

"""What is read of single rows of a batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from probe.stats.lookup import normalized_rows, sampled_rows
from probe.stats.sample_kernels import departure, of_tokens
from support.observations import NORMS, observed, reference_z, tokens

BATCH, POSITION = np.array([2, 0, 0, 1]), np.array([3, 9, 0, 0])


def rows_of(o, tensor):
    rows = tensor if o.channels_last else tensor.transpose(1, 2)
    return rows.float().numpy()[BATCH, POSITION]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", NORMS)
def test_input_and_output_are_those_of_the_rows(norm, dtype):
    o = observed(tokens(3, 10, 12).to(dtype), norm)
    x, y = sampled_rows(o, BATCH, POSITION)
    np.testing.assert_array_equal(x, rows_of(o, o.x))
    np.testing.assert_array_equal(y, rows_of(o, o.y))


def test_output_may_lie_in_memory_otherwise_than_input():
    o = observed(tokens(3, 10, 12), "given")
    other = replace(o, y=o.y.transpose(0, 1).contiguous().transpose(0, 1))
    for got, expected in zip(
        sampled_rows(other, BATCH, POSITION), sampled_rows(o, BATCH, POSITION), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("norm", ["token", "rms"])
def test_rows_of_a_token_norm_are_kept_as_mean_and_sigma(norm):
    o = observed(tokens(3, 10, 12), norm)
    x, _ = sampled_rows(o, BATCH, POSITION)
    (kept,) = normalized_rows(o, x, BATCH, POSITION)
    wide = x.astype(np.float64)
    mean = wide.mean(-1) if norm == "token" else np.zeros(4)
    sigma = np.sqrt(((wide - mean[:, None]) ** 2).mean(-1))
    np.testing.assert_allclose(kept, np.stack([mean, sigma, 1 / np.sqrt(sigma**2 + 1e-6)], 1))
    z = reference_z(torch.from_numpy(x), o.norm).numpy()
    np.testing.assert_allclose(of_tokens(x, kept), z, rtol=1e-6, atol=1e-6)


def test_a_row_that_is_constant_has_no_inverse_where_eps_is_zero():
    o = observed(torch.zeros(1, 2, 4), "token")
    object.__setattr__(o.norm, "eps", 0.0)
    (kept,) = normalized_rows(o, np.zeros((1, 4), np.float32), BATCH[1:2], POSITION[2:3])
    assert kept.tolist() == [[0, 0, np.inf]]


def test_the_departure_is_that_of_the_farthest_output_and_no_number_is_left_aside():
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(2, 6))
    z = rng.normal(size=(5, 6)).astype(np.float32)
    y = (weight * z + bias).astype(np.float32)
    y[1, 2] += 0.5
    y[2, 0] = y[4, 2] = z[3, 1] = np.nan
    y[4, 4] = -7.0
    z[4, 4] = (-7.0 - bias[4]) / weight[4]
    error, largest = departure(z, y, weight, bias)
    assert error == pytest.approx(0.5, abs=1e-5)
    assert largest == 7.0
    nothing = np.full((2, 6), np.nan, np.float32)
    assert departure(nothing, nothing, weight, bias) == (-1.0, -1.0)

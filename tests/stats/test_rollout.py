"""Attention rollout against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from probe.errors import UsageError
from probe.stats.rollout import attention_rollout


def random_attention(heads, tokens, seed):
    weights = np.random.default_rng(seed).random((heads, tokens, tokens)) ** 3
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def test_attention_to_itself_only_leaves_every_token_where_it_is():
    np.testing.assert_array_equal(attention_rollout([np.stack([np.eye(5)] * 3)] * 4), np.eye(5))


@pytest.mark.parametrize("layers", [1, 2, 7])
def test_uniform_attention_mixes_all_but_one_half_to_the_power_of_the_depth(layers):
    """(U/2 + I/2)^L = (1 - 2^-L) U + 2^-L I, as U U = U."""
    tokens, kept = 6, 0.5**layers
    expected = (1 - kept) / tokens + kept * np.eye(tokens)
    np.testing.assert_allclose(
        attention_rollout([np.full((2, tokens, tokens), 1 / tokens)] * layers), expected, atol=1e-15
    )


def test_the_first_layer_is_applied_first():
    """Token 1 reads token 0 in layer 0, token 2 reads token 1 in layer 1: token 2 gets a quarter of
    token 0, and not the reverse.
    """
    first, second = np.eye(3)[None].copy(), np.eye(3)[None].copy()
    first[0, 1], second[0, 2] = [1, 0, 0], [0, 1, 0]
    np.testing.assert_allclose(attention_rollout([first, second])[2], [0.25, 0.25, 0.5])
    np.testing.assert_allclose(attention_rollout([second, first])[2], [0, 0.5, 0.5])


def test_heads_are_averaged():
    one = np.stack([np.eye(2), np.eye(2)[::-1]])
    np.testing.assert_allclose(attention_rollout([one]), [[0.75, 0.25], [0.25, 0.75]])


def test_rows_sum_to_one_in_float64_even_where_those_given_do_not():
    maps = [random_attention(3, 17, seed) * 0.5 for seed in range(12)]
    result = attention_rollout(maps)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        ([], "at least one layer"),
        ([np.eye(4)], r"layer 0 has shape \(4, 4\)"),
        ([np.ones((2, 4, 5))], r"takes \(heads, N, N\)"),
        ([random_attention(2, 4, 0), random_attention(2, 4, 1)[:, :3]], "layer 1 has shape"),
        ([random_attention(2, 16, 0), random_attention(4, 4, 0)], "layer 0 has 16, layer 1 has 4"),
    ],
)
def test_what_has_no_rollout_is_refused_in_one_line(maps, words):
    with pytest.raises(UsageError, match=words) as error:
        attention_rollout(maps)
    assert isinstance(error.value, ValueError)
    assert "\n" not in str(error.value)

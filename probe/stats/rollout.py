"""Attention rollout: how much of each input token reaches each token of the last layer, through all
attention layers.

Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928. Attention of one layer: (heads, N, N),
rows are queries and sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probe.errors import UsageError


def attention_rollout(maps: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """(N, N): row q holds the share of every input token in token q after the last layer; a row
    sums to 1.

    `maps`: the (heads, N, N) attention of each layer of one image, first layer first. With the
    residual branch as an identity:

        A_bar   = 0.5 * mean over heads of A + 0.5 * I, rows divided by their sum
        rollout = A_bar_L @ ... @ A_bar_1

    Raises UsageError (a ValueError) for no layer, another shape, or layers of different N (windows,
    pooling between stages).
    """
    layers = [np.asarray(attention) for attention in maps]
    tokens = _tokens(layers)
    product = np.eye(tokens)
    for attention in layers:
        product = _with_residual(attention) @ product
    return product


def _with_residual(attention: NDArray[np.float64]) -> NDArray[np.float64]:
    mixed = 0.5 * attention.mean(axis=0, dtype=np.float64) + 0.5 * np.eye(attention.shape[-1])
    return np.asarray(mixed / mixed.sum(axis=-1, keepdims=True))


def _tokens(layers: Sequence[NDArray[np.float64]]) -> int:
    """N, the same in every layer."""
    if not layers:
        raise UsageError(
            "attention rollout needs the attention of at least one layer; 0 were given"
        )
    for index, attention in enumerate(layers):
        if attention.ndim != 3 or attention.shape[1] != attention.shape[2] or not attention.size:
            raise UsageError(
                f"attention rollout takes (heads, N, N) per layer; layer {index} has shape "
                f"{attention.shape}"
            )
    counts = [attention.shape[-1] for attention in layers]
    for index, count in enumerate(counts):
        if count != counts[0]:
            raise UsageError(
                "attention rollout needs the same tokens in every layer; layer 0 has "
                f"{counts[0]}, layer {index} has {count}: models with windows or pooling have "
                "no rollout, choose layers of one stage"
            )
    return counts[0]

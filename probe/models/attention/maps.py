"""The full attention probabilities of one image, for pictures and rollout. Never for a data set: N
x N numbers per head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probe.errors import UsageError
from probe.models.attention.tokens import token_options
from probe.models.attention.watch import Watch
from probe.models.reading.layers import unwrapped
from probe.stats.attention import Geometry
from probe.stats.attention_scores import Scores, probabilities


@dataclass(frozen=True)
class AttentionMap:
    """Attention of one layer in one image: every row sums to one; prefix tokens come first.

    Of windowed attention (windows > 1) `probabilities` is (heads, windows, N, N), N the tokens of a
    window.
    """

    layer: str
    probabilities: NDArray[np.float32]  # (heads, N, N)
    prefix: int
    grid: tuple[int, int]
    token_stride: float
    windows: int


def attention_maps(
    module: nn.Module,
    inputs: Tensor,
    *,
    prefix_tokens: int | None = None,
    patch_size: int | tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
) -> list[AttentionMap]:
    """Maps of all layers for `inputs` (1, C, H, W), one forward pass without gradients. Raises
    UsageError for several images.
    """
    if inputs.ndim != 4 or len(inputs) != 1:
        raise UsageError(
            f"inputs of shape {tuple(inputs.shape)}: attention maps are of one image, (1, "
            "channels, height, width)"
        )
    module = unwrapped(module)
    maps: list[AttentionMap] = []
    calls: list[tuple[str, int]] = []

    def take(key: tuple[str, int], scores: Scores, geometry: Geometry) -> None:
        # tokens behind the patches have no place in a map
        if scores.shape[2] == geometry.prefix + len(geometry.distances):
            calls.append(key)
            maps.append(_map(key[0], scores, geometry))

    watch = Watch(module, token_options(module, prefix_tokens, patch_size, grid), take)
    with watch.running(), torch.no_grad():
        watch.begin(1, (inputs.shape[2], inputs.shape[3]))
        module(inputs)
    several = {name for name, call in calls if call > 1}
    refused = watch.unreadable
    return [
        replace(found, layer=f"{name}#{call}") if name in several else found
        for (name, call), found in zip(calls, maps, strict=True)
        if name not in refused
    ]


def _map(layer: str, scores: Scores, geometry: Geometry) -> AttentionMap:
    heads_first = probabilities(scores).transpose(0, 1).float().cpu().numpy()
    return AttentionMap(
        layer,
        heads_first if geometry.windows > 1 else heads_first[:, 0],
        geometry.prefix,
        geometry.grid,
        geometry.token_stride,
        geometry.windows,
    )

"""Do the tokens of a model stand where their grid says? Change one patch of an image and see which
token changes most."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probe.models.attention.tokens import token_options
from probe.models.attention.watch import Watch
from probe.models.reading.layers import unwrapped
from probe.stats.attention import Geometry, patch_centres
from probe.stats.attention_scores import GivenScores, ProductScores, Scores

Key = tuple[str, int]


def grid_agreement(
    module: nn.Module, image: Tensor, patches: Iterable[tuple[float, float]], **options: Any
) -> list[dict[str, Any]]:
    """One row per attention layer without windows: layer, grid, token_stride, patches (how many
    were changed), agreeing, and the largest distance in pixels between the changed patch and the
    token that changed most.

    `image` (1, C, H, W); `patches` are (y, x) in pixels. A patch agrees where that token is no more
    than one and a half strides along each axis from it, which allows for overlapping patch
    embeddings.
    """
    size = (int(image.shape[2]), int(image.shape[3]))
    plain = _queries(module, image, **options)
    off: dict[Key, list[float]] = {key: [] for key in plain}
    for y, x in patches:
        changed = _queries(module, _with_patch(image, y, x), **options)
        for key, (geometry, before) in plain.items():
            moved = np.abs(changed[key][1] - before).sum(axis=(0, 2))
            centre = _centres(geometry, size)[int(moved.argmax())]
            stride = np.array(size) / geometry.grid
            off[key].append(float(np.abs((centre - (y, x)) / stride).max()))
    return [
        {
            "layer": name,
            "grid": geometry.label,
            "token_stride": geometry.token_stride,
            "patches": len(off[name, call]),
            "agreeing": sum(strides <= 1.5 for strides in off[name, call]),
            "largest_offset": max(off[name, call], default=0.0),
        }
        for (name, call), (geometry, _) in plain.items()
    ]


def _centres(geometry: Geometry, size: tuple[int, int]) -> NDArray[np.float64]:
    stride = (size[0] / geometry.grid[0], size[1] / geometry.grid[1])
    return patch_centres(geometry.grid, stride)


def _with_patch(image: Tensor, y: float, x: float, side: int = 4) -> Tensor:
    """The image with a bright square around (y, x)."""
    changed = image.clone()
    top, left = (max(0, int(at) - side // 2) for at in (y, x))
    changed[..., top : top + side, left : left + side] += 8.0
    return changed


def _queries(
    module: nn.Module, image: Tensor, **options: Any
) -> dict[Key, tuple[Geometry, NDArray[np.float64]]]:
    """Of each layer without windows: its geometry and what stands for its query patches, (heads,
    patches, values): the queries, or their rows of scores."""
    seen: dict[Key, tuple[Geometry, NDArray[np.float64]]] = {}

    def take(key: Key, scores: Scores, geometry: Geometry) -> None:
        if geometry.windows == 1:
            patches = slice(geometry.prefix, geometry.prefix + len(geometry.distances))
            seen[key] = geometry, _values(scores)[:, patches]

    module = unwrapped(module)
    watch = Watch(module, token_options(module, **options), take)
    with watch.running(), torch.no_grad():
        watch.begin(1, (image.shape[2], image.shape[3]))
        module(image)
    return seen


def _values(scores: Scores) -> NDArray[np.float64]:
    assert isinstance(scores, ProductScores | GivenScores)
    values = scores.q if isinstance(scores, ProductScores) else scores.scores
    return values[0].double().cpu().numpy()

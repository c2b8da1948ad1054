"""Prove the grid of attention layers: one patch of an image is changed, and the token that changes
most must be the one of that place."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import nn

from probe.errors import ProbeError, UsageError
from probe.jobs.inputs import open_model
from probe.models.attention.grid_check import grid_agreement
from probe.models.loading.load import Model
from probe.models.reading.unchanged import unchanged

_PLACES = (0.13, 0.5, 0.88)  # of the height and of the width: nine patches


def check_attention_grid(
    model: str | Model | nn.Module,
    *,
    image_size: int | tuple[int, int] | None = None,
    weights: str = "random",
    seed: int = 0,
    device: str | None = None,
    offline: bool = False,
    patch_size: int | tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    prefix_tokens: int | None = None,
) -> pd.DataFrame:
    """Does each attention layer's grid agree with the model's behaviour?

    Nine patches of a random image are changed one after the other; the query that changes most must
    belong to the token that the grid has at this place. Random weights, the default for a model
    given by name, show it most clearly.

    image_size: height and width of the image in pixels; None: 224, or what a loaded model expects.
    patch_size, grid, prefix_tokens: as `attention_distance` takes them.

    Returns one row per layer that sees the whole image: layer, grid, token_stride, patches (tried),
    agreeing, largest_offset (between patch and token, in token strides), agrees. Layers of windows
    are read from the same followed places and are not tried.

    Raises ProbeError where no layer can be tried.
    """
    loaded = open_model(model, weights=weights, device=device, seed=seed, offline=offline)
    size = _size(loaded, image_size)
    device_of = next(loaded.module.parameters(), torch.zeros(())).device
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed)).to(device_of)
    options = {"patch_size": patch_size, "grid": grid, "prefix_tokens": prefix_tokens}
    patches = [(y * size[0], x * size[1]) for y in _PLACES for x in _PLACES]
    with unchanged(loaded.module):
        rows = grid_agreement(loaded.module, image, patches, **options)
    if not rows:
        raise ProbeError("no attention layer that sees the whole image could be read")
    table = pd.DataFrame(rows)
    table["agrees"] = table["agreeing"] == table["patches"]
    return table


def _size(model: Model, image_size: int | tuple[int, int] | None) -> tuple[int, int]:
    if isinstance(image_size, int):
        return image_size, image_size
    if image_size is not None:
        if len(image_size) != 2:
            raise UsageError(f"image_size={image_size!r}: accepted is a number or (height, width)")
        return image_size
    return _expected(model.module)


def _expected(module: Any) -> tuple[int, int]:
    """What the patch embedding or the configuration says; else 224."""
    for owner in (getattr(module, "patch_embed", None), module, getattr(module, "config", None)):
        for name in ("img_size", "image_size"):
            size = getattr(owner, name, None)
            if isinstance(size, int):
                return size, size
            if isinstance(size, list | tuple) and len(size) == 2:
                return int(size[0]), int(size[1])
    return 224, 224

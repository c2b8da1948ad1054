"""Where the tokens of one attention call are: grid, stride, windows, from the shapes that the running modules were given."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probe.errors import UsageError
from probe.models.attention.calls import Unreadable
from probe.models.attention.layout import Frame, Tokens, as_pair
from probe.stats.attention import Geometry, patch_centres, patch_distances

Pair = tuple[int, int]

_WINDOW = ("window_size", "partition_size", "ws")
_KEY_REDUCTION = ("sr_ratio", "pool_k", "kv_strides", "kv_stride", "stride_kv", "sequence_reduction_ratio")


@dataclass(frozen=True)
class Place:
    """All that is known where a call happens: the running modules, outermost first, and the input."""

    frames: tuple[Frame, ...]
    images: int
    size: Pair | None
    tokens: Tokens
    first: bool = True  # no layer was read before: what the user said must fit here

    def attribute(self, names: tuple[str, ...]) -> Iterator[tuple[Frame, object]]:
        """Attributes of the innermost modules that have one of the names."""
        for frame in reversed(self.frames):
            for name in names:
                if (value := getattr(frame.module, name, None)) is not None:
                    yield frame, value


def locate(place: Place, rows: int, length: int, keys: int) -> Geometry:
    """The geometry of a call with `rows` rows of `length` queries and `keys` keys. Raises Unreadable, or UsageError for an override."""
    if rows % place.images:
        raise Unreadable(f"a batch of {rows} is no multiple of the {place.images} images")
    windows = rows // place.images
    if windows == 1:
        found = _global_grid(place, length)
        if found is not None:
            return _global(place, *found, length, keys)
    if length != keys:
        raise Unreadable(_no_grid(place, length, keys))
    for window, partition in _windows(place, length):
        for grid in _stage_grids(place):
            if math.prod(-(-side // part) for side, part in zip(grid, window, strict=True)) == windows:
                return _windowed(place, grid, window, windows, partition)
    if windows > 1:
        raise Unreadable(f"{windows} groups of {length} tokens per image: no window_size says where their tokens are")
    raise Unreadable(_no_grid(place, length, keys))


def _no_grid(place: Place, length: int, keys: int) -> str:
    if length <= max(1, *place.tokens.prefix):
        return f"queries are not patches ({length} of them)"
    what = f"{length} tokens" if length == keys else f"{length} queries and {keys} keys"
    size = f"an input of {place.size[0]}x{place.size[1]}" if place.size else "an input of unknown size"
    return f"{what} are no grid of patches on {size} (prefix tokens tried: {', '.join(map(str, place.tokens.prefix))})"


def _global(place: Place, prefix: int, grid: Pair, length: int, keys: int) -> Geometry:
    stride = token_stride(grid, place)
    queries = patch_centres(grid, stride)
    if length == keys:
        return Geometry(grid, _mean(stride), prefix, 1, patch_distances(queries, queries))
    reduced = _reduced(place, grid, keys - prefix)
    if reduced is None:
        raise Unreadable(f"{keys} keys are not on the grid {grid[0]}x{grid[1]} of the queries")
    spread = (stride[0] * grid[0] / reduced[0], stride[1] * grid[1] / reduced[1])
    return Geometry(grid, _mean(stride), prefix, 1, patch_distances(queries, patch_centres(reduced, spread)))


def _reduced(place: Place, grid: Pair, keys: int) -> Pair | None:
    """The coarser grid of keys that a module pools before it looks at them (PVT); None where no module says that it does."""
    if keys < 1 or next(place.attribute(_KEY_REDUCTION), None) is None:
        return None
    exact = [(rows, keys // rows) for rows in range(1, keys + 1) if keys % rows == 0 and rows * grid[1] * rows == keys * grid[0]]
    near = [
        (-(-grid[0] // factor), -(-grid[1] // factor))
        for factor in range(1, max(grid) + 1)
        if -(-grid[0] // factor) * -(-grid[1] // factor) == keys
    ]
    return next(iter(exact + near), None)


def _mean(stride: tuple[float, float]) -> float:
    return stride[0] if stride[0] == stride[1] else math.sqrt(stride[0] * stride[1])


def _global_grid(place: Place, length: int) -> tuple[int, Pair] | None:
    """Prefix tokens and grid of `length` tokens that make up an image; None where they do not."""
    tokens = place.tokens
    if place.first and (tokens.grid or tokens.given_patch or tokens.given_prefix):
        found = _given_grid(place, length)
        if found is None:
            what = f"{place.frames[-1].path} works on {length} tokens"
            size = f" of an input of {place.size[0]}x{place.size[1]}" if place.size else ""
            raise UsageError(
                f"{tokens.given} does not fit: {what}{size}; leave it out or give prefix tokens + grid that make {length}"
            )
        return found
    return _find_grid(place, length)


def _given_grid(place: Place, length: int) -> tuple[int, Pair] | None:
    tokens = place.tokens
    if tokens.grid is not None:
        grids = [tokens.grid]
        if tokens.given_patch and place.size and not _covers(tokens.grid, tokens.patch, place.size):
            return None
    elif tokens.given_patch and place.size is not None:
        assert tokens.patch is not None
        grids = list(_patch_grids(place.size, tokens.patch))
    else:
        return _find_grid(place, length)
    return next(((p, grid) for p in tokens.prefix for grid in grids if length - p == math.prod(grid)), None)


def _covers(grid: Pair, patch: tuple[float, float] | None, size: Pair) -> bool:
    """Do the patches cover the image, give or take one at the border?"""
    return patch is not None and all(abs(n * p - side) <= p for n, p, side in zip(grid, patch, size, strict=True))


def _patch_grids(size: Pair, patch: Pair) -> Iterator[Pair]:
    """The grids of whole patches and of patches that reach over the border."""
    yield size[0] // patch[0], size[1] // patch[1]
    yield -(-size[0] // patch[0]), -(-size[1] // patch[1])


def _find_grid(place: Place, length: int) -> tuple[int, Pair] | None:
    """Most certain first: the patch size of the model, planes that a module was given, a grid of exactly the input's shape."""
    options = [(p, length - p) for p in place.tokens.prefix if length > p]
    size, patch = place.size, place.tokens.patch
    if place.tokens.grid is not None:
        halved = [(-(-place.tokens.grid[0] // 2**i), -(-place.tokens.grid[1] // 2**i)) for i in range(6)]
        return next(((p, grid) for p, n in options for grid in halved if n == math.prod(grid)), None)
    if size is None:
        return next(((p, (math.isqrt(n), math.isqrt(n))) for p, n in options if math.isqrt(n) ** 2 == n), None)
    if patch is not None:
        for p, n in options:
            for grid in _patch_grids(size, patch):
                if n == math.prod(grid):
                    return p, grid
    for p, n in options:
        for grid in _planes(place):
            if n == math.prod(grid) and _same_shape(grid, size):
                return p, grid
    for p, n in options:
        rows = math.isqrt(n * size[0] // size[1])
        if rows and n % rows == 0 and rows * size[1] == n // rows * size[0]:
            return p, (rows, n // rows)
    return None


def _planes(place: Place) -> Iterator[Pair]:
    """Height and width of the tensors (B, H, W, C) or (B, C, H, W) that the running modules were given, innermost first."""
    for frame in reversed(place.frames[1:]):
        if frame.shape is not None and len(frame.shape) == 4 and frame.shape[0] == place.images:
            yield frame.shape[1], frame.shape[2]
            yield frame.shape[2], frame.shape[3]


def _same_shape(grid: Pair, size: Pair) -> bool:
    """Is the grid of the image's shape, give or take one token?"""
    return abs(grid[0] * size[1] - grid[1] * size[0]) < max(size[1], size[0])


def token_stride(grid: Pair, place: Place) -> tuple[float, float]:
    """Pixels between neighbouring tokens: input size / grid where that is whole; else, as convolutions have whole strides, the patch
    size times or by a power of two that covers the input give or take one token; else input size / grid."""
    size, patch = place.size, place.tokens.patch
    if size is None:
        if patch is None:
            raise Unreadable("neither the input size nor the patch size is known: give patch_size=")
        return float(patch[0]), float(patch[1])
    raw = (size[0] / grid[0], size[1] / grid[1])
    if size[0] % grid[0] == 0 and size[1] % grid[1] == 0:
        return raw
    if patch is not None:
        power = 2.0 ** round(math.log2(raw[0] / patch[0]))
        whole = (patch[0] * power, patch[1] * power)
        if _covers(grid, whole, size):
            return whole
    return raw


def _windows(place: Place, length: int) -> Iterator[tuple[Pair, Frame]]:
    """Window sizes that the running modules state, of `length` tokens."""
    for frame, value in place.attribute(_WINDOW):
        pair = as_pair(value)
        if pair is not None and math.prod(pair) == length:
            yield pair, frame


def _stage_grids(place: Place) -> Iterator[Pair]:
    """Grids of the whole image at this depth, innermost first."""
    if place.size is None:
        raise Unreadable("windows on an input of unknown size")
    for frame in reversed(place.frames[1:]):
        if frame.shape is None or frame.shape[0] != place.images:
            continue
        if len(frame.shape) == 4:
            for grid in ((frame.shape[1], frame.shape[2]), (frame.shape[2], frame.shape[3])):
                if _same_shape(grid, place.size):
                    yield grid
        elif len(frame.shape) == 3 and (found := _find_grid(place, frame.shape[1])) is not None:
            yield found[1]


def _windowed(place: Place, grid: Pair, window: Pair, windows: int, partition: Frame) -> Geometry:
    stride = token_stride(grid, place)
    inside = stride
    if getattr(partition.module, "partition_block", True) is False:  # MaxViT's grid attention: every n-th token of the image
        inside = (stride[0] * (grid[0] // window[0]), stride[1] * (grid[1] // window[1]))
    centres = patch_centres(window, inside)
    outside = _outside(grid, window, partition)
    return Geometry(grid, _mean(stride), 0, windows, patch_distances(centres, centres), outside)


def _outside(grid: Pair, window: Pair, partition: Frame) -> NDArray[np.bool_] | None:
    """(windows, window tokens) True at tokens that only fill up the last windows; None where no window needs them.

    Shifted windows are the map rolled by -shift: filled up first (torchvision, transformers), or after rolling (timm).
    """
    counts = [-(-side // part) for side, part in zip(grid, window, strict=True)]
    if (counts[0] * window[0], counts[1] * window[1]) == grid:
        return None
    outside = np.ones((counts[0] * window[0], counts[1] * window[1]), bool)
    outside[: grid[0], : grid[1]] = False
    shift = getattr(partition.module, "shift_size", 0)
    shifts = (shift, shift) if isinstance(shift, int) else tuple(shift)
    if not type(partition.module).__module__.startswith("timm."):
        rolled = [0 if part >= side else by for part, side, by in zip(window, outside.shape, shifts, strict=True)]
        outside = np.roll(outside, (-rolled[0], -rolled[1]), axis=(0, 1))
    tiles = outside.reshape(counts[0], window[0], counts[1], window[1]).swapaxes(1, 2)
    return tiles.reshape(counts[0] * counts[1], window[0] * window[1])

"""Where the tokens of one attention call are: in the whole image, in windows, or, of the keys, on a
coarser grid.
"""

from __future__ import annotations

import math
import re

from probe.errors import UsageError
from probe.models.attention.calls import Unreadable
from probe.models.attention.layout import Pair
from probe.models.attention.place import Place, covers, exact_grid
from probe.models.attention.windows import windowed
from probe.stats.attention import Geometry, grid_distances, mean_stride

# a module that has one of these looks at fewer keys than it has tokens, pooled from all of them;
# the queries may be pooled too
_REDUCED = (
    "sr_ratio",
    "sr",
    "pool_k",
    "kv_strides",
    "kv_stride",
    "stride_kv",
    "sequences_reduction_ratio",
    "spatial_reduction_size",
)

# these look at something else than the tokens of their own grid
_ELSEWHERE = re.compile(r"Cross|Pool|Latent|Perceiver|Resampler|Decoder")


def locate(place: Place, rows: int, length: int, keys: int) -> Geometry:
    """The geometry of a call with `rows` rows of `length` queries and `keys` keys. Raises
    Unreadable; UsageError where what the user said does not fit the first layer."""
    if rows % place.images:
        raise Unreadable(f"a batch of {rows} is no multiple of the {place.images} images")
    geometry = _located(place, rows // place.images, length, keys)
    if place.first:
        _check_given(place, geometry, length)
    if geometry is None:
        raise Unreadable(_why_not(place, rows // place.images, length, keys))
    return geometry


def _located(place: Place, groups: int, length: int, keys: int) -> Geometry | None:
    if length == 1 < keys:
        raise Unreadable("queries are not patches: there is one")
    if groups == 1:
        if not (place.works_on(length) or place.says(_REDUCED)):
            return windowed(place, 1, length)
        if (found := place.find_grid(length)) is not None:
            return _whole(place, *found, length, keys)
    return windowed(place, groups, length) if length == keys else None


def _whole(place: Place, prefix: int, grid: Pair, length: int, keys: int) -> Geometry:
    """Every query sees keys of the whole image."""
    stride = place.stride(grid)
    if length == keys:
        return Geometry(grid, mean_stride(stride), prefix, 1, grid_distances(grid, stride))
    coarse = _coarse_grid(place, grid, keys - prefix)
    if coarse is None:
        raise Unreadable(f"{keys} keys are not on the grid {grid[0]}x{grid[1]} of the queries")
    spread = (stride[0] * grid[0] / coarse[0], stride[1] * grid[1] / coarse[1])
    return Geometry(
        grid, mean_stride(stride), prefix, 1, grid_distances(grid, stride, coarse, spread)
    )


def _coarse_grid(place: Place, grid: Pair, keys: int) -> Pair | None:
    """The grid of `keys` keys pooled from all tokens: that of the queries divided by a whole
    number; of a module that says that it pools also rounded up, or any of the same shape."""
    divided = [(-(-grid[0] // factor), -(-grid[1] // factor)) for factor in range(2, max(grid) + 1)]
    if place.says(_REDUCED):
        return exact_grid(keys, grid) or next(
            (pair for pair in divided if math.prod(pair) == keys), None
        )
    if _ELSEWHERE.search(type(place.frames[-1].module).__name__):
        return None
    exact = (pair for pair in divided if grid[0] % pair[0] == 0 and grid[1] % pair[1] == 0)
    return next((pair for pair in exact if math.prod(pair) == keys > 1), None)


def _check_given(place: Place, geometry: Geometry | None, length: int) -> None:
    """What the user said must fit the first layer. Raises UsageError."""
    tokens, size = place.tokens, place.size
    if not tokens.given:
        return
    fits = geometry is not None and tokens.grid in (None, geometry.grid)
    if geometry is not None and tokens.given_patch and size is not None:
        assert tokens.patch is not None
        fits = fits and covers(geometry.grid, tokens.patch, size)
    if geometry is not None and tokens.given_prefix:
        fits = fits and geometry.prefix == tokens.prefix[0]
    if not fits:
        on = f" of an input of {size[0]}x{size[1]} pixels" if size else ""
        raise UsageError(
            f"{tokens.given} does not fit: {place.frames[-1].path} works on {length} tokens{on}; "
            f"accepted are prefix tokens and a grid that make {length}, and patches that cover "
            "the input"
        )


def _why_not(place: Place, groups: int, length: int, keys: int) -> str:
    if groups > 1:
        return (
            f"{groups} groups of {length} queries and {keys} keys per image: no module says where "
            "their tokens are"
        )
    if not place.works_on(length):
        return f"its {length} queries and {keys} keys are not the tokens that the module works on"
    size = f"{place.size[0]}x{place.size[1]}" if place.size else "unknown size"
    tried = ", ".join(map(str, place.tokens.prefix))
    return (
        f"{length} queries and {keys} keys are no grid of patches on an input of {size} (prefix "
        f"tokens tried: {tried})"
    )

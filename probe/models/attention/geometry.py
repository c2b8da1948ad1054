"""The geometry of one attention call: from the places of its tokens, or from what the user says."""

from __future__ import annotations

import math
from collections.abc import Iterator

from probe.errors import UsageError
from probe.models.attention.call_site import CallSite
from probe.models.attention.calls import Unreadable
from probe.models.attention.layouts import TokenLayout
from probe.models.attention.tokens import Pair
from probe.models.attention.windows import windowed
from probe.stats.attention import Geometry, grid_distances, mean_stride, patch_distances


def followed(queries: TokenLayout, keys: TokenLayout) -> Geometry:
    """Of tokens whose places are known. Raises Unreadable."""
    if queries.windows != keys.windows:
        raise Unreadable(f"{queries.windows} windows of queries and {keys.windows} of keys")
    if queries.windows > 1 or not queries.inside.all():
        if queries.rows.shape != keys.rows.shape or not _same_tokens(queries, keys):
            raise Unreadable("queries and keys of its windows are not the same tokens")
        return windowed(queries)
    for layout, what in ((queries, "queries"), (keys, "keys")):
        layout.check_complete(what)
        layout.check_order(what)
    if queries.prefix != keys.prefix:
        raise Unreadable(f"{queries.prefix} prefix tokens ask, {keys.prefix} are asked")
    stride = queries.stride
    if queries.map is keys.map and _same_tokens(queries, keys) and queries.regular:
        distances = grid_distances(queries.grid, stride)
    else:
        distances = patch_distances(queries.centres(), keys.centres())
    return Geometry(queries.grid, mean_stride(stride), queries.prefix, 1, distances)


def _same_tokens(queries: TokenLayout, keys: TokenLayout) -> bool:
    pairs = ((queries.rows, keys.rows), (queries.columns, keys.columns))
    return all(one.shape == other.shape and (one == other).all() for one, other in pairs)


def declared(site: CallSite, rows: int, length: int, keys: int) -> Geometry:
    """Of `rows` rows of `length` queries and `keys` keys, by the user's grid= or patch_size= alone.
    Raises Unreadable where these do not say it."""
    if rows != site.images or length != keys:
        raise Unreadable(
            f"{rows} rows of {length} queries and {keys} keys of {site.images} images: grid= and "
            "patch_size= say only where the tokens of a whole image are"
        )
    grids = list(_declared_grids(site))
    if not grids:
        raise Unreadable("the size of the image is not known: give grid= with patch_size=")
    for prefix in site.options.prefixes:
        for grid in grids:
            if prefix + math.prod(grid) == length:
                stride = _declared_stride(site, grid)
                return Geometry(grid, mean_stride(stride), prefix, 1, grid_distances(grid, stride))
    if not site.first:
        raise Unreadable(f"its {length} tokens are not those that {site.options.text} speaks of")
    raise misfit(site, length)


def _declared_grids(site: CallSite) -> Iterator[Pair]:
    """The user's grid, or that of whole patches, or of patches that reach over the border."""
    patch, size = site.options.patch, site.size
    if site.options.grid is not None:
        yield site.options.grid
    elif patch is not None and size is not None:
        yield size[0] // patch[0], size[1] // patch[1]
        yield -(-size[0] // patch[0]), -(-size[1] // patch[1])


def _declared_stride(site: CallSite, grid: Pair) -> tuple[float, float]:
    """Pixels between neighbouring tokens."""
    patch, size = site.options.patch, site.size
    if patch is not None:
        return float(patch[0]), float(patch[1])
    if size is None:
        raise Unreadable("neither the input size nor the patch size is known: give patch_size=")
    return size[0] / grid[0], size[1] / grid[1]


def check_options(site: CallSite, geometry: Geometry, length: int) -> None:
    """What the user said must fit the first layer. Raises UsageError."""
    options, size = site.options, site.size
    fits = options.grid in (None, geometry.grid)
    if options.patch is not None and size is not None:
        fits = fits and _covers(geometry.grid, options.patch, size)
    if options.prefix not in (None, geometry.prefix) or not fits:
        raise misfit(site, length)


def _covers(grid: Pair, patch: Pair, size: Pair) -> bool:
    """Do the patches cover the image, give or take one at the border?"""
    sides = zip(grid, patch, size, strict=True)
    return all(abs(count * side - whole) <= side for count, side, whole in sides)


def misfit(site: CallSite, length: int) -> UsageError:
    on = f" of an input of {site.size[0]}x{site.size[1]} pixels" if site.size else ""
    return UsageError(
        f"{site.options.text} does not fit: {site.layer.path} works on {length} tokens{on}; "
        f"accepted are prefix tokens and a grid that make {length}, and patches that cover "
        "the input"
    )

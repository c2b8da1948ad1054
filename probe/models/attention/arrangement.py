"""Which leading axes of a call are images and windows, and which are heads: (..., L, D) becomes
(R, H, L, D).

Heads look at the same tokens, images and windows at different ones: where the places of the tokens
were followed, they show it. Otherwise the module's number of heads and the shape of its input do.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from probe.models.attention.call_site import CallSite
from probe.models.attention.calls import Call, Order, Unreadable
from probe.models.attention.known import HEADS
from probe.models.attention.tracing import constant_along


def by_places(places: Tensor, images: int) -> Order:
    """From the numbers (..., L) of the places of queries, with the rows of one image side by
    side."""
    leading = places.shape[:-1]
    if not leading:
        return lambda t: t[None, None]
    if len(leading) == 1:
        each = _run_length(places, images)
        return lambda t: t.unflatten(0, (-1, each))
    rows = [axis for axis in range(len(leading)) if not constant_along(places, axis)] or [0]
    heads = [axis for axis in range(len(leading)) if axis not in rows]
    return lambda t: _flattened(t, rows, heads)


def _flattened(t: Tensor, rows: list[int], heads: list[int]) -> Tensor:
    ordered = t.permute(*rows, *heads, t.ndim - 2, t.ndim - 1)
    r, h = (math.prod(t.shape[axis] for axis in axes) for axes in (rows, heads))
    return ordered.reshape(r, h, *t.shape[-2:])


def _run_length(places: Tensor, images: int) -> int:
    """How many rows (N, L) in a row are alike, which are the heads of one image or window."""
    total = len(places)
    changed = (places[1:] != places[:-1]).any(-1).nonzero()
    if not len(changed):
        if images > 1:
            raise Unreadable(f"{total} rows of attention do not split into {images} images")
        return total
    heads = int(changed[0, 0]) + 1
    if total % heads or not constant_along(places.unflatten(0, (-1, heads)), 1):
        raise Unreadable("the heads of an image do not stand side by side")
    return heads


def by_module(call: Call, site: CallSite) -> Order:
    """From what the module says and was given. Raises Unreadable where the axes are not known."""
    shape, leading = call.shape, call.shape[:-2]
    heads, images = call.heads or heads_of(site.layer.module), site.images
    if len(leading) == 2:
        return lambda t: t
    if not leading:
        return lambda t: t[None, None]
    if len(leading) == 1:
        batch = _batch(site.layer.shape, shape[-2], images)
        each = 1 if leading[0] == batch else heads or leading[0] // (batch or leading[0])
        if leading[0] % (each * images):
            raise Unreadable(
                f"scores of shape {shape} do not split into {images} images and {each} heads"
            )
        return lambda t: t.unflatten(0, (-1, each))
    raise Unreadable(f"scores of shape {shape}: no axis is known to be the heads")


def heads_of(module: nn.Module) -> int | None:
    """Number of heads that an attention module says it has."""
    for name in HEADS:
        if isinstance(value := getattr(module, name, None), int):
            return value
    return None


def _batch(shape: tuple[int, ...] | None, length: int, images: int) -> int | None:
    """The batch size of a layer that was given groups of `length` tokens: (B, N, C), (N, B, C) or
    (B, H, W, C) and such."""
    if shape is None or len(shape) < 3:
        return None
    if len(shape) == 3 and shape[0] == length and shape[1] == images:
        return shape[1]
    lengths = (shape[1], shape[-2], math.prod(shape[1:3]), math.prod(shape[2:]))
    return shape[0] if length in lengths else None

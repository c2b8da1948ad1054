"""Read one call: whose tokens its queries and keys are, which axis the heads are, and where all of
them are in the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from probe.models.attention import arrangement
from probe.models.attention.call_site import CallSite
from probe.models.attention.calls import Call, Order, Unreadable
from probe.models.attention.geometry import check_options, declared, followed
from probe.models.attention.known import without_distance
from probe.models.attention.layouts import read_layout
from probe.models.attention.tracing import Origin, Tracer, constant_along
from probe.models.attention.tracing.track import everywhere, settled
from probe.models.attention.windows import check_masked
from probe.stats.attention import Geometry


@dataclass(frozen=True)
class Reading:
    """How the calls of a layer are read: the order of their axes, and where their tokens are."""

    order: Order
    geometry: Geometry


def read(call: Call, site: CallSite, tracer: Tracer) -> Reading:
    """Raises Unreadable with the reason, UsageError where what the user said does not fit."""
    if (reason := without_distance(site.layer.module)) is not None:
        raise Unreadable(reason)
    places = token_places(call, tracer)
    if any(bool((numbers >= 0).any()) for numbers in places):
        return _followed(call, site, tracer, *places)
    lowest = min(int(numbers.min()) for numbers in places)
    if lowest == Origin.PICKED or not (site.options.grid or site.options.patch):
        raise Unreadable(_nowhere(tracer, lowest))
    return _declared(call, site)


def token_places(call: Call, tracer: Tracer) -> tuple[Tensor, Tensor]:
    """Numbers (..., L) of the places of the queries and (..., S) of the keys. Raises Unreadable for
    scores between channels."""
    shape = call.shape
    if call.scores is not None:
        return _of_scores(tracer, call.scores)
    assert call.q is not None
    assert call.k is not None
    queries, keys = _of_tokens(tracer, call.q), _of_tokens(tracer, call.k)
    keys = call.expanded_to_queries(keys[..., None])[..., 0]
    return queries.expand(shape[:-1]), keys


def _of_tokens(tracer: Tracer, tokens: Tensor) -> Tensor:
    """(..., N) of tokens (..., N, D)."""
    track = tracer.track(tokens)
    if track is None:
        return everywhere(Origin.FREE, tokens.shape[:-1])
    places = settled(track.numbers[0], -1, Origin.FREE)
    if len(track.numbers) > 1 or places is None:
        raise Unreadable("channel attention: its scores are between channels, not tokens")
    return places[..., 0]


def _of_scores(tracer: Tracer, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Queries change along the rows of scores (..., L, S), keys along the columns. Raises
    Unreadable for a single score, which shows neither."""
    if scores.shape[-2:] == (1, 1):
        raise Unreadable("each of its windows holds one query and one key: nowhere else to look")
    track = tracer.track(scores)
    queries = everywhere(Origin.FREE, scores.shape)
    keys = queries
    for numbers in track.numbers if track is not None else ():
        if constant_along(numbers, -1) and not constant_along(numbers, -2):
            queries = numbers
        elif constant_along(numbers, -2):
            keys = numbers
        else:
            raise Unreadable("its scores are not between queries and keys")
    return queries[..., 0], keys[..., 0, :]


def _nowhere(tracer: Tracer, lowest: int) -> str:
    if lowest == Origin.FREE:
        return (
            "its tokens do not come from an image that the model was given: say where they are "
            "with grid= and patch_size="
        )
    return f"its tokens have no known place: {tracer.places.reason(lowest)}"


def _followed(call: Call, site: CallSite, tracer: Tracer, queries: Tensor, keys: Tensor) -> Reading:
    images, length = site.images, call.shape[-2]
    _refuse_other(queries, tracer, "queries")
    order = arrangement.by_places(queries, images)
    layouts = [
        read_layout(tracer.places, _of_heads(order(numbers[..., None])), images, what)
        for numbers, what in ((queries, "queries"), (keys, "keys"))
    ]
    geometry = followed(*layouts)
    if geometry.windows > 1:
        check_masked(layouts[0], geometry, call.ordered(order))
    if site.first and site.options.text:
        check_options(site, geometry, length)
    return Reading(order, geometry)


def _refuse_other(queries: Tensor, tracer: Tracer, what: str) -> None:
    if not bool((queries >= 0).any()):
        reason = tracer.places.reason(int(queries.min()))
        raise Unreadable(f"its {what} are not patches: {reason}")


def _of_heads(numbers: Tensor) -> Tensor:
    """(R, tokens) of (R, H, tokens, 1)."""
    if not constant_along(numbers, 1):
        raise Unreadable("its heads look at different tokens")
    return numbers[:, 0, :, 0].contiguous()


def _declared(call: Call, site: CallSite) -> Reading:
    order = arrangement.by_module(call, site)
    rows, _, length, keys = order(torch.empty(call.shape, device="meta")).shape
    return Reading(order, declared(site, rows, length, keys - call.added))

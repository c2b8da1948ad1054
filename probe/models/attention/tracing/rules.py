"""Which rule follows which operation of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from probe.models.attention.tracing import maps, moves
from probe.models.attention.tracing.combine import combined
from probe.models.attention.tracing.operation import PRODUCTS, Operation
from probe.models.attention.tracing.places import Origin
from probe.models.attention.tracing.products import product, reduced
from probe.models.attention.tracing.track import Track, constant_along, everywhere

PICKING = {
    "gather",
    "index_select",
    "masked_select",
    "take",
    "topk",
    "sort",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "index_put",
    "index_add",
    "index_copy",
    "nonzero",
    "_index_put_impl",
}
REDUCTIONS = {
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "std",
    "var_mean",
    "linalg_vector_norm",
    "norm",
    "logsumexp",
    "prod",
}
ATTENTION = ("scaled_dot_product", "_scaled_dot_product")


def tracks_of(call: Operation) -> list[Track]:
    """The tracks of all results."""
    rule = _rule(call)
    tracks = rule(call) if rule is not None else None
    if tracks is None:
        return [_lost(call, call.places.unfollowed(call.name), r.shape) for r in call.results]
    tracks = tracks if isinstance(tracks, list) else [tracks]
    # what comes beside the first result (indices, statistics) has no place of its own
    return [
        track if track.shape == result.shape else _lost(call, Origin.MIXED, result.shape)
        for track, result in zip(tracks, call.results, strict=False)
    ]


def _lost(call: Operation, number: int, shape: torch.Size) -> Track:
    """The weightier reason of the inputs, or this one."""
    lost = (int(n.min()) for track in call.tracks for n in track.numbers if n.numel())
    worst = min(lost, default=number)
    return Track((everywhere(worst if worst < Origin.PADDING else number, shape),))


def _rule(call: Operation) -> Callable[[Operation], Track | list[Track] | None] | None:
    name = call.name
    if name in _RULES:
        return _RULES[name]
    if name.startswith(ATTENTION):
        return _attention
    if name.startswith("upsample"):
        return _upsample
    if torch.Tag.pointwise in call.func.tags or name in moves.POINTWISE:
        return _pointwise
    return None


def _first(call: Operation) -> Track | None:
    return call.track(call.args[0]) if isinstance(call.args[0], Tensor) else call.tracks[0]


def _kept(call: Operation) -> Track | None:
    return _first(call)


def _moved(call: Operation) -> Any:
    track = _first(call)
    return None if track is None else moves.view(call.func, call.args, call.kwargs, track)


def _reshaped(call: Operation) -> Track | None:
    track = _first(call)
    if track is None or track.shape.numel() != call.shape.numel():  # another dtype
        return None
    return moves.reshaped(track, call.shape)


def _pointwise(call: Operation) -> Track:
    return combined(call.places, call.tracks, call.shape)


def _halved(call: Operation) -> Track | None:
    """glu: the first half of the channels times a gate."""
    track = _first(call)
    axis = call.given["dim"]
    if track is None or not all(constant_along(numbers, axis) for numbers in track.numbers):
        return None
    return track.map(lambda numbers: numbers.narrow(axis, 0, call.shape[axis]))


def _bordered(call: Operation) -> Track | None:
    """Reflected and repeated borders are padding; only the last axes, those of an image."""
    track = _first(call)
    return None if track is None else moves.padded(track, list(call.args[1]), call.shape)


def _copied(call: Operation) -> Track:
    """Into the first tensor; the tensor that it is a part of is not followed any more."""
    source = call.track(call.args[1])
    if source is None:
        return Track((everywhere(Origin.FREE, call.shape),))
    return source.map(lambda numbers: numbers.expand(call.shape))


def _filled(call: Operation) -> Track:
    return Track((everywhere(Origin.FREE, call.shape),))


def _picked(call: Operation) -> Track:
    return Track((everywhere(Origin.PICKED, call.shape),))


def _indexed(call: Operation) -> Track | None:
    """Of a tensor that has no places: a table. Along channels picking moves no place."""
    track, indices = call.track(call.args[0]), call.args[1]
    if track is None:
        return Track((everywhere(Origin.FREE, call.shape),))
    along = [axis for axis, index in enumerate(indices) if index is not None]
    if len(along) == 1 and all(constant_along(n, along[0]) for n in track.numbers):
        shape = list(track.shape)
        shape[along[0]] = indices[along[0]].numel()
        if tuple(shape) == tuple(call.shape):
            return track.map(lambda n: n.narrow(along[0], 0, 1).expand(call.shape))
    return _picked(call)


def _embedded(call: Operation) -> Track | None:
    track = call.track(call.args[1])
    if track is None:
        return _picked(call)
    return track.map(lambda numbers: numbers[..., None].expand(call.shape))


def _joined(call: Operation) -> Track | None:
    tensors = [tensor for tensor in call.args[0] if tensor.numel() or tensor.ndim > 1]
    axis = call.given["dim"]
    new = call.name == "stack"
    if new:
        tensors = [tensor.unsqueeze(axis) for tensor in tensors]
        tracks = [
            track.map(lambda numbers: numbers.unsqueeze(axis)) if track is not None else None
            for track in map(call.track, call.args[0])
        ]
    else:
        tracks = [call.track(tensor) for tensor in tensors]
    return moves.joined([t.shape for t in tensors], tracks, axis)


def _rolled(call: Operation) -> Track | None:
    track = _first(call)
    return None if track is None else moves.rolled(track, call.given["shifts"], call.given["dims"])


def _padded(call: Operation) -> Track | None:
    track = _first(call)
    return None if track is None else moves.padded(track, call.given["pad"], call.shape)


def _unfolded(call: Operation) -> Track | None:
    track = _first(call)
    return None if track is None else moves.unfolded(track, call.func, call.args, call.kwargs)


def _multiplied(call: Operation) -> Track | None:
    """mm and bmm; addmm and baddbmm, whose first tensor is a bias."""
    left, right = call.args[:2] if call.name in ("mm", "bmm") else call.args[1:3]
    result = product(call.places, call.track(left), call.track(right), call.shape)
    added = call.track(call.args[0]) if call.name.startswith(("add", "badd")) else None
    if added is None or result is None or added.is_scores != result.is_scores:
        return result
    expanded = added.map(lambda numbers: numbers.expand(call.shape))
    return combined(call.places, [result, expanded], call.shape)


def _reduced(call: Operation) -> list[Track] | None:
    track = _first(call)
    if track is None:
        return None
    if sum(isinstance(value, Tensor) for value in call.args) > 1:  # the larger of two
        return [_pointwise(call)]
    axes = call.given.get("dim")
    axes = [axes] if isinstance(axes, int) else list(axes or [])
    shape = call.shape
    return [reduced(call.places, track, axes, shape)] * len(call.results)


def _attention(call: Operation) -> list[Track] | None:
    """(..., L, D) of the queries, with the channels of the values."""
    query = call.track(call.args[0])
    if query is None:
        return [Track((everywhere(Origin.FREE, call.shape),))]
    return [query.map(lambda numbers: numbers[..., :1].expand(call.shape))]


def _convolved(call: Operation) -> Track | None:
    track = call.track(call.args[0])
    if track is None:
        return None
    given, axes = call.given, len(call.shape) - 2
    kernel = tuple(call.args[1].shape[2:])
    stride, padding, dilation = (
        _each(given[name], axes) for name in ("stride", "padding", "dilation")
    )
    window = maps.Window(kernel, stride, padding, dilation)
    if track.is_scores and set(kernel) != {1}:
        return None
    slide = maps.spread if given["transposed"] else maps.slid
    return track.map(lambda numbers: slide(call.places, numbers, window, call.shape))


def _pooled(call: Operation) -> list[Track] | None:
    track = _first(call)
    if track is None or track.is_scores:
        return None
    given = call.given
    axes = 2 if "2d" in call.name else 1
    kernel = _each(given["kernel_size"], axes)
    window = maps.Window(
        kernel,
        _each(given["stride"] or kernel, axes),
        _each(given["padding"], axes),
        _each(given.get("dilation", 1), axes),
    )
    if len(track.shape) != axes + 2:
        batched = track.map(lambda numbers: numbers[None])
        shape = torch.Size((1, *call.shape))
        return [batched.map(lambda n: maps.slid(call.places, n, window, shape)[0])]
    return [track.map(lambda numbers: maps.slid(call.places, numbers, window, call.shape))]


def _adaptive(call: Operation) -> list[Track] | None:
    track = _first(call)
    if track is None or track.is_scores or len(track.shape) != 4:
        return None
    return [track.map(lambda numbers: maps.adaptive(call.places, numbers, call.shape))]


def _upsample(call: Operation) -> Track | None:
    track = _first(call)
    if track is None or track.is_scores or len(track.shape) != 4:
        return None
    corners = bool(call.given.get("align_corners"))
    return track.map(lambda numbers: maps.resized(call.places, numbers, call.shape, corners))


def _each(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * axes if len(values) == 1 else values


Rule = Callable[[Operation], Any]
_RULES: dict[str, Rule] = {
    **dict.fromkeys(moves.VIEWS, _moved),
    **dict.fromkeys(moves.KEPT | moves.SOFTMAXES, _kept),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), _reshaped),
    **dict.fromkeys(("cat", "stack"), _joined),
    **dict.fromkeys(PICKING, _picked),
    **dict.fromkeys(moves.FILLED, _filled),
    **dict.fromkeys(PRODUCTS, _multiplied),
    **dict.fromkeys(REDUCTIONS, _reduced),
    **dict.fromkeys(("convolution", "convolution_overrideable", "mkldnn_convolution"), _convolved),
    **dict.fromkeys(("avg_pool2d", "max_pool2d_with_indices", "avg_pool1d"), _pooled),
    **dict.fromkeys(("_adaptive_avg_pool2d", "adaptive_max_pool2d"), _adaptive),
    "index": _indexed,
    "embedding": _embedded,
    "copy": _copied,
    "roll": _rolled,
    "glu": _halved,
    **dict.fromkeys(("reflection_pad2d", "replication_pad2d", "_pad_circular"), _bordered),
    "constant_pad_nd": _padded,
    "im2col": _unfolded,
}

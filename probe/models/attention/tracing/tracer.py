"""A dispatch mode that follows the places of the image through every operation of a forward pass.

    tracer = Tracer(layer=lambda: "blocks.0.attn")
    tracer.start((images,), count)         # pixels are places, whole numbers are text
    with tracer:
        module(images)
    tracer.track(q)                        # where its elements come from

Below the level of functions torch has few operations: they move elements, combine them one by one,
sum over an axis (products, convolutions, means), or pick some. Each of these has one rule; what has
none loses the places, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from probe.models.attention.dispatch import Operations
from probe.models.attention.tracing import rules
from probe.models.attention.tracing.operation import Operation
from probe.models.attention.tracing.places import Origin, Places
from probe.models.attention.tracing.track import Track, everywhere


class Tracer(Operations):
    """`layer` says which layer is running. `altered` names the layers whose attention was mixed or
    changed between their softmax and the values that it weighs, with the operation."""

    def __init__(self, layer: Callable[[], str]) -> None:
        super().__init__()
        self.places = Places()
        self.altered: dict[str, str] = {}
        self.paused = False  # while numbers are computed beside the model
        self._layer = layer
        self._tracks: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def start(self, inputs: Iterable[Any], images: int) -> None:
        """Forget the last pass; `inputs` are what the model is given, of `images` images."""
        self.forget()
        for tensor in tree_leaves(list(inputs)):
            if (
                isinstance(tensor, Tensor)
                and (numbers := self._numbers(tensor, images)) is not None
            ):
                self._tracks[tensor] = Track((numbers,))

    def forget(self) -> None:
        """Places and tensors of the last pass; what was altered stays."""
        self.places = Places()
        self._tracks.clear()

    def _numbers(self, tensor: Tensor, images: int) -> Tensor | None:
        """Pixels of (B, C, H, W), frames of (B, T, C, H, W) and the like, whole numbers of text."""
        if not tensor.is_floating_point():
            return everywhere(Origin.TEXT, tensor.shape) if tensor.ndim == 2 else None
        if tensor.ndim == 4 and len(tensor) == images:
            pixels = self.places.pixels(images, tensor.shape[2], tensor.shape[3])
            return pixels[:, None].expand(tensor.shape)
        return everywhere(Origin.VIDEO, tensor.shape) if tensor.ndim == 5 else None

    def track(self, tensor: Tensor) -> Track | None:
        """Where a tensor comes from; None for one made from parameters alone."""
        return self._tracks.get(tensor)

    def operation(self, func: Any, args: tuple, kwargs: dict) -> Any:
        if self.paused:
            return func(*args, **kwargs)
        with self:  # in inference mode composite operations arrive whole
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        out = func(*args, **kwargs)
        tensors = [value for value in tree_leaves([args, kwargs]) if isinstance(value, Tensor)]
        if any(tensor in self._tracks for tensor in tensors):
            self._follow(func, args, kwargs, out)
        return out

    def _follow(self, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
        call = Operation(func, args, kwargs, out, self._tracks.get, self.places)
        results = [value for value in tree_leaves(out) if isinstance(value, Tensor)]
        tracks = rules.tracks_of(call)
        tracks = self._with_weights(call, tracks)
        for tensor, track in zip(results, tracks, strict=False):
            self._tracks[tensor] = track

    def _with_weights(self, call: Operation, tracks: list[Track]) -> list[Track]:
        """Which results are attention weights, and whether those that weigh values were changed
        since their softmax. Means over heads, made to be returned, weigh nothing."""
        if call.is_softmax:
            return [replace(track, weights_of=self._layer(), altered_by=None) for track in tracks]
        weights = next((t for t in call.tracks if t.weights_of is not None), None)
        if weights is None:
            return tracks
        altered = weights.altered_by or (call.name if call.alters_weights(tracks) else None)
        if call.is_product and altered is not None:
            assert weights.weights_of is not None
            self.altered.setdefault(weights.weights_of, altered)
        if call.is_product and not tracks[0].is_scores:
            return [replace(track, weights_of=None, altered_by=None) for track in tracks]
        return [
            replace(track, weights_of=weights.weights_of, altered_by=altered) for track in tracks
        ]

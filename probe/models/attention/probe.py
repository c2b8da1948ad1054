"""Attention distance per head while a model runs: the numbers are computed beside it, from the very
q, k, mask and scale it uses.

The model keeps its fused kernel and its output. Nothing of size tokens x tokens is kept, only sums
over images.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probe.models.attention.tokens import token_options
from probe.models.attention.watch import Watch
from probe.models.reading.layers import unwrapped
from probe.stats.attention import VALUES, Geometry, HeadSums
from probe.stats.attention_scores import Scores
from probe.stats.attention_sums import PendingHeads, attention_sums
from probe.stats.execution_order import ExecutionOrder
from probe.stats.results import Results
from probe.stats.state import State, put_under, taken_from

Key = tuple[str, int]  # module path, call in a forward pass
Mark = tuple[str, int]  # of an attention call, beside those of other hooks


class AttentionProbe:
    """Attention distance of every head of a model.

        probe = AttentionProbe(module)
        with probe, torch.no_grad():
            for images in batches:
                probe.begin(len(images), images.shape[-2:])
                module(images)
        probe.rows()            # one row per layer and head
        probe.unreadable        # module path -> why it has no row

    `prefix_tokens`, `patch_size` and `grid` (of the first attention layer) say what a model shows
    in no other way; UsageError where they do not fit it.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        prefix_tokens: int | None = None,
        patch_size: int | tuple[int, int] | None = None,
        grid: tuple[int, int] | None = None,
    ) -> None:
        module = unwrapped(module)
        options = token_options(module, prefix_tokens, patch_size, grid)
        self._watch = Watch(module, options, self._take)
        self._layers: dict[Key, tuple[Geometry, HeadSums]] = {}
        self._order = ExecutionOrder()
        self._passes = 0
        self._changed_grids: dict[str, str] = {}  # module path -> reason: left out
        self._images = 0
        self._valid: NDArray[np.bool_] | None = None
        self._left_out: Collection[Mark] = ()
        self._seen: set[Mark] = set()
        self._results: Results | None = None
        self._block: ExitStack | None = None

    def __enter__(self) -> AttentionProbe:
        with ExitStack() as stack:
            stack.enter_context(self._watch.running())
            self._block = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        assert self._block is not None
        self._block.__exit__(*error)

    def begin(
        self,
        images: int,
        input_size: tuple[int, int] | None,
        valid: NDArray[np.bool_] | None = None,
        place: int | None = None,
        left_out: Collection[Mark] = (),
        seen: set[Mark] | None = None,
        results: Results | None = None,
    ) -> None:
        """Say what the next forward pass runs: number of images, (height, width) in pixels (None:
        as the model was given it), and `valid` (B, tokens), with or without prefix tokens, False at
        padding tokens. Where several probes share the batches, `place` says which comes first.
        left_out: calls that have had these images before; seen: takes up those that are read.
        results: collect the sums of calls on a device, which are waited for without."""
        self._order.begin(self._passes if place is None else place)
        self._passes += 1
        self._watch.begin(images, input_size)
        self._images, self._valid = images, valid
        self._left_out, self._seen = left_out, set() if seen is None else seen
        self._results = results

    @property
    def unreadable(self) -> dict[str, str]:
        """Module path -> why it has no row: linear or channel attention, tokens without a known
        place, heads mixed after the softmax, no call seen, several grids.
        """
        return self._watch.unreadable | self._changed_grids

    @property
    def calls(self) -> int:
        """Attention calls read so far."""
        return self._watch.calls

    def merge(self, other: AttentionProbe) -> None:
        """Take over what another probe saw of other batches."""
        for key, (geometry, sums) in other._layers.items():
            if (mine := self._sums(key, geometry, len(sums.images))) is not None:
                mine.merge(sums)
        self._changed_grids |= other._changed_grids
        self._order.merge(other._order)
        self._passes += other._passes
        self._watch.merge(other._watch)

    def state(self) -> tuple[dict[str, Any], State]:
        """What was read: facts for JSON, and arrays."""
        layers = [[*key, geometry.facts()] for key, (geometry, _) in self._layers.items()]
        facts = {
            "layers": layers,
            "order": self._order.state(),
            "passes": self._passes,
            "changed_grids": self._changed_grids,
            "watch": self._watch.state(),
        }
        arrays: State = {}
        for number, (_, sums) in enumerate(self._layers.values()):
            arrays |= put_under(str(number), sums.state())
        return facts, arrays

    def restore(self, facts: Mapping[str, Any], arrays: State) -> None:
        """Go on from what another probe of the same model read."""
        for number, (path, call, geometry) in enumerate(facts["layers"]):
            state = taken_from(str(number), arrays)
            sums = HeadSums(len(state["images"]))
            sums.restore(state)
            self._layers[path, call] = Geometry.from_facts(geometry), sums
        self._order.restore(facts["order"])
        self._passes, self._changed_grids = facts["passes"], dict(facts["changed_grids"])
        self._watch.restore(facts["watch"])

    def __getstate__(self) -> dict[str, Any]:
        """What was read; it can be merged, but watches no model."""
        return self.__dict__ | {"_block": None, "_valid": None, "_results": None}

    def rows(self) -> list[dict[str, Any]]:
        """One row per layer and head, in execution order. The std is over images, divided by their
        number.
        """
        several = {name for name, call in self._layers if call > 1}
        refused = self.unreadable
        return [
            row
            for depth, (name, call) in enumerate(self._order)
            for row in _layer_rows(
                f"{name}#{call}" if name in several else name, depth, *self._layers[name, call]
            )
            if name not in refused
        ]

    def _take(self, key: Key, scores: Scores, geometry: Geometry) -> None:
        self._order.see(key)
        sums = self._sums(key, geometry, scores.shape[1])
        if sums is not None and _mark(key) not in self._left_out:
            queries = geometry.prefix + len(geometry.distances)
            part = scores if scores.shape[2] == queries else FirstQueries(scores, queries)
            valid = self._patches_valid(geometry)
            of_call = attention_sums(part, geometry, self._images, valid)
            if self._results is not None and not of_call.is_cpu:
                self._results.add(PendingHeads(sums, of_call))
            else:
                sums.update(of_call.cpu().numpy())
                self._seen.add(_mark(key))

    def _sums(self, key: Key, geometry: Geometry, heads: int) -> HeadSums | None:
        """The sums of a layer; None where its grid changed from one batch to another, which leaves
        it out.
        """
        first, sums = self._layers.setdefault(key, (geometry, HeadSums(heads)))
        if first.same(geometry):
            return sums
        self._changed_grids[key[0]] = (
            f"it works on a grid of {first.label} and then of {geometry.label} tokens: distances "
            "of different input sizes do not mix, give images of one size"
        )
        return None

    def _patches_valid(self, geometry: Geometry) -> NDArray[np.bool_] | None:
        """The mask over the patches of a layer that works on the masked tokens; None for layers on
        other tokens.
        """
        length, patches = geometry.distances.shape
        if self._valid is None or geometry.windows > 1 or length != patches:
            return None
        for prefix in (geometry.prefix, 0):
            if self._valid.shape[1] == patches + prefix:
                return np.asarray(self._valid)[:, prefix:]
        return None


def _mark(key: Key) -> Mark:
    return f"attention of {key[0]}", key[1]


@dataclass(frozen=True)
class FirstQueries:
    """Scores of the first `count` queries: tokens behind the patches, such as those of detection,
    are keys only."""

    scores: Scores
    count: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        rows, heads, _, keys = self.scores.shape
        return rows, heads, self.count, keys

    @property
    def device(self) -> torch.device:
        return self.scores.device

    @property
    def dtype(self) -> torch.dtype:
        return self.scores.dtype

    @property
    def masked(self) -> bool:
        return self.scores.masked

    def part(self, rows: slice, heads: slice, queries: slice, keys: slice) -> Tensor:
        return self.scores.part(rows, heads, queries, keys)


def _layer_rows(layer: str, depth: int, geometry: Geometry, sums: HeadSums) -> list[dict[str, Any]]:
    means, std = sums.means(), sums.std()
    return [
        {
            "layer": layer,
            "head": head,
            **dict(zip(VALUES[:2], map(float, means[head, :2]), strict=True)),
            "distance_patches": float(means[head, 0] / geometry.token_stride),
            "distance_px_std": float(std[head]),
            **dict(zip(VALUES[2:], map(float, means[head, 2:]), strict=True)),
            "token_stride": geometry.token_stride,
            "grid": geometry.label,
            "uniform_px": geometry.uniform_px,
            "images": int(sums.images[head]),
            "depth": depth,
            "windows": geometry.windows,
            "prefix_tokens": geometry.prefix,
        }
        for head in range(len(means))
    ]

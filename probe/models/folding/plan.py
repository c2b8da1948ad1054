"""Which map of which layer moves where: decided on the graph alone, without touching a weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from probe.models.folding.affine_maps import LEADING, NormLayer
from probe.models.folding.graph import Blocked, Flow, Region
from probe.models.folding.linear import Linear, linear_of
from probe.models.folding.propagate import spread


@dataclass(frozen=True, eq=False)
class Move:
    """A map of `layer` that moves into `targets`, each with the channel of the layer for each
    channel of the target.

    direction: before (into the linear layer before it), after (into those after it), affine (weight
    and bias, into those after it), alpha (into the one before it).
    """

    layer: NormLayer
    direction: str
    targets: tuple[tuple[Linear, Tensor], ...]

    @property
    def into(self) -> str:
        return ", ".join(linear.name for linear, _ in self.targets)

    @property
    def backward(self) -> bool:
        return self.direction in ("before", "alpha")


@dataclass(frozen=True)
class Outcome:
    """What became of one map of one layer."""

    layer: str
    kind: str
    into: str
    direction: str  # before, after, affine, alpha; empty for a kept layer that could go either way
    status: str  # folded, kept
    reason: str  # why it is kept


class Planner:
    """Tries every map of every layer. What is in the way of one may be gone once another has moved,
    so it tries again.
    """

    def __init__(self, flow: Flow, layers: Sequence[NormLayer]) -> None:
        self.flow = flow
        self.layers = layers
        self.moves: list[Move] = []  # in the order in which they are to be made
        self.reasons: dict[tuple[str, str], str] = {}
        self.wishes: list[tuple[NormLayer, tuple[str, ...]]] = [
            (layer, ("before", "after")) for layer in layers if layer.is_line
        ]
        for layer in layers:
            if not layer.is_line:
                curve = [("alpha",)] if layer.kind.kind in LEADING else []
                self.wishes += [(layer, directions) for directions in (*curve, ("affine",))]
        self._gone: dict[Node, Region] = {}

    def plan(self) -> list[Move]:
        """The moves that can be made; `reasons` says why the others cannot."""
        waiting = list(self.wishes)
        while waiting:
            kept = [wish for wish in waiting if not self._try(*wish)]
            unblocked = len(kept) < len(waiting) and any(
                move.direction in ("before", "after") for move in self.moves
            )
            if not unblocked:
                break
            waiting = kept
        return self.moves

    def _try(self, layer: NormLayer, directions: tuple[str, ...]) -> bool:
        reasons = {}
        for direction in directions:
            try:
                layer.check(direction)
                region = self.flow.region(layer.path, layer.axis)
                self.moves.append(self._move(layer, direction, region))
            except Blocked as blocked:
                reasons[direction] = str(blocked)
                continue
            if direction in ("before", "after") and not layer.has_activation:
                self._gone.update(dict.fromkeys(region.nodes, region))
            return True
        self.reasons[layer.path, directions[0]] = _joined(reasons)
        return False

    def _move(self, layer: NormLayer, direction: str, region: Region) -> Move:
        shift = bool(layer.map(direction)[1].any())
        if direction in ("before", "alpha"):
            return Move(layer, direction, (self._source(region, shift),))
        readers = spread(self.flow, region.output, region.axis, shift, self._gone)
        targets = [(reader, channels) for reader, channels in readers if isinstance(reader, Linear)]
        for linear, _ in targets:
            if shift:
                linear.check_shift()
        return Move(layer, direction, tuple(targets))

    def _source(self, region: Region, shift: bool) -> tuple[Linear, Tensor]:
        """The linear layer that makes the input of `region` and of nothing else, and the order of
        its output channels there.
        """
        linear = self._maker(region.input)
        readers = spread(
            self.flow, linear.node, linear.axis(linear.node), shift, self._gone, until=region
        )
        for reader, _ in readers:
            if isinstance(reader, Linear):
                raise Blocked(f"its input is also read by {reader.name}")
        channels = readers[0][1]
        if not torch.equal(channels.sort().values, torch.arange(linear.outputs)):
            raise Blocked(f"its channels are not those of {linear.name} one by one")
        return linear, channels.argsort()

    def _maker(self, node: Node) -> Linear:
        """The linear layer at the beginning of a chain of operations with one input each."""
        while True:
            if node in self._gone:
                node = self._gone[node].input
                continue
            if linear := linear_of(self.flow, node):
                return linear
            sources = self.flow.sources(node)
            if len(sources) != 1:
                raise Blocked(f"its input is made by {self.flow.describe(node)}")
            (node,) = sources


def _joined(reasons: dict[str, str]) -> str:
    if len(set(reasons.values())) == 1:
        return next(iter(reasons.values()))
    return "; ".join(f"{direction}: {reason}" for direction, reason in reasons.items())


__all__ = ["Move", "Outcome", "Planner"]

"""Which map of which layer is folded where: decided on the graph alone; no weight is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from probe.models.folding.affine_maps import Direction, NormLayer
from probe.models.folding.graph import FoldGraph, LayerCall, NotFoldable
from probe.models.folding.linear import LinearOp, linear_of
from probe.models.folding.propagate import propagate


@dataclass(frozen=True)
class Candidate:
    """A map that could be folded, with the directions to try in this order."""

    layer: NormLayer
    directions: tuple[Direction, ...]


@dataclass(frozen=True, eq=False)
class Fusion:
    """A map of `layer` to be fused into `targets`, each with the channel of the layer for each
    channel of the target.
    """

    candidate: Candidate
    direction: Direction
    targets: tuple[tuple[LinearOp, Tensor], ...]

    @property
    def layer(self) -> NormLayer:
        return self.candidate.layer

    @property
    def into(self) -> str:
        return ", ".join(linear.name for linear, _ in self.targets)


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
    """Tries every map of every layer. What is in the way of one may be gone once another is fused,
    so it tries again.

        planner = Planner(graph, layers)
        fusions = planner.plan()
        planner.reasons[candidate]  # why a candidate without a fusion has none
    """

    def __init__(self, graph: FoldGraph, layers: Sequence[NormLayer]) -> None:
        self.graph = graph
        self.layers = layers
        self.candidates = _candidates(layers)
        self.fusions: list[Fusion] = []  # in the order in which they are to be applied
        self.reasons: dict[Candidate, str] = {}
        self._identities: dict[Node, LayerCall] = {}  # nodes of layers that would be gone

    def plan(self) -> list[Fusion]:
        """The fusions that can be made; `reasons` says why the other candidates cannot."""
        waiting = self.candidates
        while waiting:
            blocked = [candidate for candidate in waiting if not self._fuse(candidate)]
            # only a layer that is gone can clear the way of another one
            has_cleared = len(blocked) < len(waiting) and any(
                fusion.direction.removes_layer for fusion in self.fusions
            )
            if not has_cleared:
                break
            waiting = blocked
        return self.fusions

    def _fuse(self, candidate: Candidate) -> bool:
        layer = candidate.layer
        reasons = {}
        for direction in candidate.directions:
            try:
                layer.check(direction)
                call = self.graph.layer_call(layer.path, layer.axis)
                targets = self._targets(layer, direction, call)
            except NotFoldable as reason:
                reasons[direction] = str(reason)
                continue
            self.fusions.append(Fusion(candidate, direction, targets))
            if direction.removes_layer and not layer.has_activation:
                self._identities.update(dict.fromkeys(call.nodes, call))
            return True
        self.reasons[candidate] = _joined(reasons)
        return False

    def _targets(
        self, layer: NormLayer, direction: Direction, call: LayerCall
    ) -> tuple[tuple[LinearOp, Tensor], ...]:
        has_shift = bool(layer.map(direction)[1].any())
        if direction.is_upstream:
            return (self._producer(call, has_shift),)
        users = propagate(self.graph, call.output, call.axis, has_shift, self._identities)
        targets = [(user, channels) for user, channels in users if isinstance(user, LinearOp)]
        for linear, _ in targets:
            if has_shift:
                linear.check_shift()
        return tuple(targets)

    def _producer(self, call: LayerCall, has_shift: bool) -> tuple[LinearOp, Tensor]:
        """The linear layer that makes the input of `call` and of nothing else, and the order of its
        output channels there.
        """
        linear = self._linear_before(call.input)
        axis = linear.axis(linear.node)
        users = propagate(self.graph, linear.node, axis, has_shift, self._identities, until=call)
        for user, _ in users:
            if isinstance(user, LinearOp):
                raise NotFoldable(f"its input is also read by {user.name}")
        channels = users[0][1]
        if not torch.equal(channels.sort().values, torch.arange(linear.out_channels)):
            raise NotFoldable(f"its channels are not those of {linear.name} one by one")
        return linear, channels.argsort()

    def _linear_before(self, node: Node) -> LinearOp:
        """The linear layer at the beginning of a chain of operations with one input each."""
        while True:
            if node in self._identities:
                node = self._identities[node].input
                continue
            if linear := linear_of(self.graph, node):
                return linear
            inputs = self.graph.inputs(node)
            if len(inputs) != 1:
                raise NotFoldable(f"its input is made by {self.graph.describe(node)}")
            (node,) = inputs


def _candidates(layers: Sequence[NormLayer]) -> list[Candidate]:
    """Layers that are affine as a whole first: each that goes clears the way of others."""
    whole = [
        Candidate(layer, (Direction.BEFORE, Direction.AFTER)) for layer in layers if layer.is_affine
    ]
    parts = [
        Candidate(layer, (direction,))
        for layer in layers
        if not layer.is_affine
        for direction in (Direction.ALPHA, Direction.AFFINE)
        if direction is Direction.AFFINE or layer.has_alpha
    ]
    return whole + parts


def _joined(reasons: dict[Direction, str]) -> str:
    if len(set(reasons.values())) == 1:
        return next(iter(reasons.values()))
    return "; ".join(f"{direction}: {reason}" for direction, reason in reasons.items())


__all__ = ["Candidate", "Fusion", "Outcome", "Planner"]

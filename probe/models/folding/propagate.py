"""Follow a per-channel affine map through the graph to the linear layers that use it.

A tensor on the way is described by the channel that each of its elements belongs to. An operation
is passed if it commutes with every such map, f(s x + t) = s f(x) + t: reshapes, transposes,
selected tokens, means, concatenation. That is tried out on random numbers instead of looked up in a
list of operations, which would never be complete and would have to know every argument; a ReLU, a
sum with another tensor or a padding with zeros fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from probe.models.folding.graph import FoldGraph, LayerCall, NotFoldable, shape_of
from probe.models.folding.linear import LinearOp, linear_of

# of the random numbers: two, so that a function that is straight near 0 only (a clamp) or far from
# it only (a hardshrink) is found out
MAGNITUDES = (1.0, 1e5)
TOLERANCE = 1e-5  # of the largest output: a cast to float32 on the way is no obstacle


def propagate(
    graph: FoldGraph,
    start: Node,
    axis: int,
    has_shift: bool,
    identities: Mapping[Node, LayerCall],
    until: LayerCall | None = None,
) -> list[tuple[LinearOp | LayerCall, Tensor]]:
    """What uses a map on the channels (on `axis`) of `start`: each linear layer, or the layer
    `until`, with (K,) channels of its input.

    identities: layers that are the identity by now, by their nodes. has_shift: False where the map
    is a scale alone. Raises NotFoldable where something else uses it.
    """
    channels: dict[Node, Any] = {start: _channel_indices(start, axis)}
    users: dict[Any, tuple[LinearOp | LayerCall, Tensor]] = {}
    for node in graph.nodes_after(start):
        inputs = [source for source in graph.inputs(node) if source in channels]
        if not inputs or node not in graph.users(inputs[0]):
            continue
        if node.op == "output":
            raise NotFoldable("the model returns it")
        if until is not None and node in until.nodes:
            users[until] = (until, _along(channels[until.input], until.axis, until.path))
        elif node in identities:
            channels[identities[node].output] = channels[identities[node].input]
        elif linear := linear_of(graph, node):
            on_axis = _along(channels[linear.input], linear.axis(linear.input), linear.name)
            users[node] = (linear, on_axis)
        else:
            of_inputs = {source: channels[source] for source in inputs}
            channels[node] = _passed(graph, node, of_inputs, has_shift)
    if not users:
        raise NotFoldable("nothing reads it")
    return list(users.values())


def _channel_indices(node: Node, axis: int) -> Tensor:
    """The channel of each element, where channels lie along one axis."""
    shape = shape_of(node)
    axes_behind = (-axis if axis < 0 else len(shape) - axis) - 1
    return torch.arange(shape[axis]).view(-1, *[1] * axes_behind).expand(shape)


def _along(channels: Any, axis: int, name: str) -> Tensor:
    """(K,) channels along one axis. Raises NotFoldable where they are not the same at every
    position.
    """
    rows = channels.movedim(axis, -1).flatten(0, -2)
    if not (rows == rows[:1]).all():
        raise NotFoldable(f"its channels do not lie along the channels of {name}")
    return rows[0]


def _passed(graph: FoldGraph, node: Node, channels: Mapping[Node, Any], has_shift: bool) -> Any:
    """The channels of what `node` makes of tensors with these channels. Raises NotFoldable where it
    does not commute with the map.
    """
    operation = graph.describe(node)
    if any(source not in channels for source in graph.inputs(node)):
        raise NotFoldable(f"{operation} reads it together with another tensor")
    in_the_way = NotFoldable(f"{operation} is in the way")
    try:
        # an operation that only moves elements around moves their channel numbers as well
        numbers = {source: _like(source, tree) for source, tree in channels.items()}
        after = tree_map(_whole, graph.evaluate(node, numbers))
        commutes = all(
            _commutes(graph, node, channels, after, has_shift, magnitude)
            for magnitude in MAGNITUDES
        )
    except NotFoldable:
        raise
    except Exception as error:  # the operation does not take float64, or what it makes is no tensor
        raise in_the_way from error
    if not commutes:
        raise in_the_way
    return after


def _commutes(
    graph: FoldGraph,
    node: Node,
    before: Mapping[Node, Any],
    after: Any,
    has_shift: bool,
    magnitude: float,
) -> bool:
    """f(s x + t) = s f(x) + t for one random s, t and x."""
    rng = torch.Generator().manual_seed(0)
    count = 1 + max(int(leaf.max()) for tree in before.values() for leaf in tree_leaves(tree))
    if not all(_within(leaf, count) for leaf in tree_leaves(after)):
        return False
    scale = torch.randn(count, generator=rng, dtype=torch.float64)
    shift = torch.randn(count, generator=rng, dtype=torch.float64) * magnitude * has_shift

    def mapped(values: Any, channels: Any) -> Any:
        return tree_map(lambda x, c: scale[c] * x.cpu() + shift[c], values, channels)

    def random(leaf: Tensor) -> Tensor:
        return magnitude * torch.randn(leaf.shape, generator=rng, dtype=torch.float64)

    def evaluate(values: Mapping[Node, Any]) -> Any:
        return graph.evaluate(
            node, {source: _like(source, tree) for source, tree in values.items()}
        )

    x = {source: tree_map(random, tree) for source, tree in before.items()}
    mapped_x = {source: mapped(tree, before[source]) for source, tree in x.items()}
    expected = mapped(evaluate(x), after)
    pairs = zip(tree_leaves(evaluate(mapped_x)), tree_leaves(expected), strict=True)
    return all(_close(actual.cpu(), wanted) for actual, wanted in pairs)


def _within(channels: Tensor, count: int) -> bool:
    return channels.numel() == 0 or 0 <= int(channels.min()) <= int(channels.max()) < count


def _close(actual: Tensor, expected: Tensor) -> bool:
    largest = expected.abs().max() if expected.numel() else 0.0
    return bool(((actual - expected).abs() <= TOLERANCE * largest).all())


def _whole(tensor: Tensor) -> Tensor:
    """Channel numbers again, after an operation on them as float64. Raises ValueError where they
    are mixed.
    """
    rounded = tensor.cpu().double().round()
    if not ((tensor.cpu() - rounded).abs() < TOLERANCE).all():
        raise ValueError("channels are mixed")
    return rounded.long()


def _like(node: Node, values: Any) -> Any:
    """`values` as float64 on the device and in the memory layout of what `node` makes, which views
    depend on.
    """
    leaves, spec = tree_flatten(values)
    metas = tree_leaves(node.meta["val"])
    pairs = zip(leaves, metas, strict=True)
    return spec.unflatten([_laid_out(leaf, meta) for leaf, meta in pairs])


def _laid_out(value: Tensor, meta: Tensor) -> Tensor:
    steps = zip(meta.stride(), meta.shape, strict=True)
    is_dense = all(stride or size == 1 for stride, size in steps)  # an expanded axis has stride 0
    strides = meta.stride() if is_dense else torch.empty(meta.shape, device="meta").stride()
    empty = torch.empty_strided(meta.shape, strides, dtype=torch.float64, device=meta.device)
    return empty.copy_(value)


__all__ = ["propagate"]

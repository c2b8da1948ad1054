"""Follow a per-channel affine map through the graph to the linear layers that read it.

A tensor on the way is described by the channel that each of its elements belongs to. An operation
is passed if it commutes with every such map, f(s x + t) = s f(x) + t: reshapes, transposes,
selected tokens, means, concatenation. That is tried out on random numbers, so no list of operations
is needed; a ReLU, a sum with another tensor or a padding with zeros fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from probe.models.folding.graph import Blocked, Flow, Region, shape_of
from probe.models.folding.linear import Linear, linear_of

SIZES = (
    1.0,
    1e5,
)  # of the random numbers: a function that is straight near 0 or far from it only is found out
TOLERANCE = 1e-5  # of the largest output: a cast to float32 on the way is no obstacle


def spread(
    flow: Flow,
    start: Node,
    axis: int,
    shift: bool,
    gone: Mapping[Node, Region],
    until: Region | None = None,
) -> list[tuple[Linear | Region, Tensor]]:
    """What reads a map on the channels (on `axis`) of `start`: each linear layer, or the layer
    `until`, with (K,) channels of its input.

    gone: regions by their nodes that are the identity by now. shift: False where the map has none.
    Raises Blocked where something else reads it.
    """
    on = {start: _numbered(start, axis)}
    found: dict[Any, tuple[Linear | Region, Tensor]] = {}
    for node in flow.after(start):
        read = [source for source in flow.sources(node) if source in on]
        if not read or node not in flow.readers(read[0]):
            continue
        if node.op == "output":
            raise Blocked("the model returns it")
        if until is not None and node in until.nodes:
            found[until] = (until, _along(on[until.input], until.axis, until.path))
        elif node in gone:
            on[gone[node].output] = on[gone[node].input]
        elif linear := linear_of(flow, node):
            found[node] = (linear, _along(on[linear.input], linear.axis(linear.input), linear.name))
        else:
            on[node] = _carried(flow, node, {source: on[source] for source in read}, shift)
    if not found:
        raise Blocked("nothing reads it")
    return list(found.values())


def _numbered(node: Node, axis: int) -> Tensor:
    """The channel of each element, where channels lie along one axis."""
    shape = shape_of(node)
    spaced = torch.arange(shape[axis]).view(
        -1, *[1] * ((-axis if axis < 0 else len(shape) - axis) - 1)
    )
    return spaced.expand(shape)


def _along(channels: Any, axis: int, name: str) -> Tensor:
    """(K,) channels along one axis. Raises Blocked where they are not the same at every
    position.
    """
    rows = channels.movedim(axis, -1).flatten(0, -2)
    if not (rows == rows[:1]).all():
        raise Blocked(f"its channels do not lie along the channels of {name}")
    return rows[0]


def _carried(flow: Flow, node: Node, channels: Mapping[Node, Any], shift: bool) -> Any:
    """The channels of what `node` makes of tensors with these channels. Raises Blocked where it
    does not commute with the map.
    """
    what = flow.describe(node)
    if any(source not in channels for source in flow.sources(node)):
        raise Blocked(f"{what} reads it together with another tensor")
    blocked = Blocked(f"{what} is in the way")
    try:
        after = tree_map(
            _whole,
            flow.run(node, {source: _like(source, tree) for source, tree in channels.items()}),
        )
        commutes = all(_commutes(flow, node, channels, after, shift, size) for size in SIZES)
    except Blocked:
        raise
    except Exception as error:  # the operation does not take float64, or what it makes is no tensor
        raise blocked from error
    if not commutes:
        raise blocked
    return after


def _commutes(
    flow: Flow, node: Node, before: Mapping[Node, Any], after: Any, shift: bool, size: float
) -> bool:
    """f(s x + t) = s f(x) + t for one random s, t and x."""
    rng = torch.Generator().manual_seed(0)
    count = 1 + max(int(leaf.max()) for tree in before.values() for leaf in tree_leaves(tree))
    if not all(
        0 <= int(leaf.min()) <= int(leaf.max()) < count
        for leaf in tree_leaves(after)
        if leaf.numel()
    ):
        return False
    scale = torch.randn(count, generator=rng, dtype=torch.float64)
    offset = torch.randn(count, generator=rng, dtype=torch.float64) * size * shift

    def mapped(tree: Any, channels: Any) -> Any:
        return tree_map(lambda x, c: scale[c] * x.cpu() + offset[c], tree, channels)

    def random(leaf: Tensor) -> Tensor:
        return size * torch.randn(leaf.shape, generator=rng, dtype=torch.float64)

    x = {source: tree_map(random, tree) for source, tree in before.items()}
    plain = flow.run(node, {source: _like(source, tree) for source, tree in x.items()})
    moved = flow.run(
        node, {source: _like(source, mapped(tree, before[source])) for source, tree in x.items()}
    )
    pairs = zip(tree_leaves(moved), tree_leaves(mapped(plain, after)), strict=True)
    return all(_close(found.cpu(), expected) for found, expected in pairs)


def _close(found: Tensor, expected: Tensor) -> bool:
    largest = expected.abs().max() if expected.numel() else 0.0
    return bool(((found - expected).abs() <= TOLERANCE * largest).all())


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

    def placed(value: Tensor, meta: Tensor) -> Tensor:
        dense = all(
            stride or size == 1 for stride, size in zip(meta.stride(), meta.shape, strict=True)
        )
        strides = meta.stride() if dense else torch.empty(meta.shape, device="meta").stride()
        return torch.empty_strided(
            meta.shape, strides, dtype=torch.float64, device=meta.device
        ).copy_(value)

    leaves, spec = tree_flatten(values)
    return spec.unflatten(
        [
            placed(leaf, meta)
            for leaf, meta in zip(leaves, tree_leaves(node.meta["val"]), strict=True)
        ]
    )


__all__ = ["spread"]

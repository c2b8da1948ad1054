"""Where a fold shows first if it is wrong: the outputs of the layers that took a map, and of those
that gave one away.

The model's own outputs can hide it: a head that starts at zero, blocks behind a small LayerScale.
Of each output one number is kept, its product with a fixed vector over its length, so that nothing
large is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from probe.models.folding.plan import Move


def sites(moves: Sequence[Move]) -> set[str]:
    """Paths of the modules whose outputs these moves must leave as they are."""
    behind: dict[
        tuple[str, str], str
    ] = {}  # weight -> the layer whose output the last map after it makes
    ahead = set()
    for move in moves:
        for linear, _ in move.targets:
            if move.backward:
                behind[linear.owner, linear.weight] = move.layer.path
            else:
                ahead.add((linear.owner, linear.weight))
    scaled = {
        owner for owner, _ in behind
    }  # their outputs change, and so do those of modules around them
    kept = {
        owner
        for owner, _ in ahead
        if not any(f"{other}.".startswith(f"{owner}.") for other in scaled)
    }
    emptied = {move.layer.path for move in moves if move.direction == "affine"}
    return (kept | set(behind.values())) - emptied - {""}


@contextmanager
def watching(module: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, float]]:
    """While the block runs, the marks of the outputs of the modules at `paths`."""
    marks: dict[str, float] = {}

    def keep(path: str) -> Any:
        def hook(_module: nn.Module, _inputs: tuple, output: Any) -> None:
            tensor = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)
            if tensor is not None:
                marks[path] = mark(tensor)

        return hook

    with ExitStack() as stack:
        for path in paths:
            stack.callback(module.get_submodule(path).register_forward_hook(keep(path)).remove)
        yield marks


def mark(tensor: Tensor) -> float:
    """r . x / |x| with r_i = sin(i)."""
    x = tensor.detach().double().flatten()
    fixed = torch.arange(1, x.numel() + 1, dtype=torch.float64, device=x.device).sin_()
    return float(fixed.dot(x) / x.norm().clamp(min=torch.finfo(torch.float64).tiny))


__all__ = ["sites", "watching"]

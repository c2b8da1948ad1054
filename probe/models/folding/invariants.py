"""Where a fold shows first if it is wrong: the outputs of the layers that took a map, and of those
that gave one away, must stay as they are.

The model's own outputs can hide it: a head that starts at zero, blocks behind a small LayerScale.
Of each output one number is kept, its projection on a fixed vector over its length, so that nothing
large is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from probe.models.folding.affine_maps import Direction
from probe.models.folding.plan import Fusion


def unchanged_modules(fusions: Sequence[Fusion]) -> set[str]:
    """Paths of the modules whose outputs these fusions must leave as they are."""
    last_layer: dict[tuple[str, str], str] = {}  # weight -> the last layer fused into it from after
    from_before = set()  # weights that a map before them was fused into
    for fusion in fusions:
        for linear, _ in fusion.targets:
            if fusion.direction.is_upstream:
                last_layer[linear.owner, linear.weight] = fusion.layer.path
            else:
                from_before.add((linear.owner, linear.weight))
    # the outputs of these linear layers change, and so do those of modules around them
    rescaled = {owner for owner, _ in last_layer}
    consumers = {
        owner
        for owner, _ in from_before
        if not any(f"{other}.".startswith(f"{owner}.") for other in rescaled)
    }
    without_affine = {
        fusion.layer.path for fusion in fusions if fusion.direction is Direction.AFFINE
    }
    return (consumers | set(last_layer.values())) - without_affine - {""}


@contextmanager
def projections(module: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, float]]:
    """The projections of the outputs of the modules at `paths`, filled while the block runs.

    with projections(module, ["blocks.0.mlp.fc1"]) as by_path:
        module(images)
    by_path["blocks.0.mlp.fc1"]
    """
    by_path: dict[str, float] = {}

    def keep(path: str) -> Any:
        def hook(_module: nn.Module, _inputs: tuple, output: Any) -> None:
            tensor = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)
            if tensor is not None:
                by_path[path] = projection(tensor)

        return hook

    with ExitStack() as stack:
        for path in paths:
            stack.callback(module.get_submodule(path).register_forward_hook(keep(path)).remove)
        yield by_path


def projection(tensor: Tensor) -> float:
    """r . x / |x| with r_i = sin(i)."""
    x = tensor.detach().double().flatten()
    fixed = torch.arange(1, x.numel() + 1, dtype=torch.float64, device=x.device).sin_()
    return float(fixed.dot(x) / x.norm().clamp(min=torch.finfo(torch.float64).tiny))


__all__ = ["projections", "unchanged_modules"]

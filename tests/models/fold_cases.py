"""What the tests of folding share: trained-looking norms, and the comparison of a module with itself before the fold."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from probe.models.fold import Fold, fold
from probe.models.layers import norm_modules


def trained(module: nn.Module, seed: int = 1) -> nn.Module:
    """Norms with running statistics and affines of either sign, one weight being zero; everything else stays random."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, norm, _ in norm_modules(module):
            for name, value in (*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)):
                if name == "running_var":
                    value.copy_(torch.rand(value.shape, generator=rng) + 0.5)
                elif name in ("alpha", "eta", "shift", "beta"):
                    value.copy_(torch.rand(value.shape, generator=rng) + 0.3)
                elif value.is_floating_point():
                    value.copy_(torch.randn(value.shape, generator=rng))
                if name == "weight" and value.numel() > 1:
                    value[1] = 0.0
    return module.eval()


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def run(module: nn.Module, x: Any) -> Tensor:
    with torch.no_grad():
        output = module(x)
    return output if isinstance(output, Tensor) else output[0]


def change(module: nn.Module, x: Tensor, **options: Any) -> tuple[Fold, float]:
    """Fold `module`, and the largest change of its output on `x` over the largest |output|. Fails where nothing was computed."""
    before = run(module, x)
    assert before.abs().max() > 0
    done = fold(module, x, **options)
    return done, float((run(module, x) - before).abs().max() / before.abs().max())


def state(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def kept(done: Fold) -> dict[str, str]:
    """Why, by layer."""
    return {outcome.layer: outcome.reason for outcome in done.outcomes if outcome.status == "kept"}


def folded(done: Fold) -> dict[str, tuple[str, str]]:
    """Direction and target, by layer."""
    return {outcome.layer: (outcome.direction, outcome.into) for outcome in done.outcomes if outcome.status == "folded"}

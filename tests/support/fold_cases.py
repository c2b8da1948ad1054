"""What the tests of folding share: trained-looking norms, and the comparison of a module with
itself before the fold.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import torch
from timm.models import ConvNeXt, VisionTransformer
from torch import Tensor, nn

from probe.models.folding.fold import Fold, fold
from probe.models.reading.layers import norm_modules


def trained(module: nn.Module, seed: int = 1) -> nn.Module:
    """Norms with running statistics and affines of either sign, one weight being zero; everything
    else stays random.
    """
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, norm, _ in norm_modules(module):
            parameters, buffers = norm.named_parameters, norm.named_buffers
            for name, value in (*parameters(recurse=False), *buffers(recurse=False)):
                if name == "running_var":
                    value.copy_(torch.rand(value.shape, generator=rng) + 0.5)
                elif name in ("alpha", "eta", "shift", "beta"):
                    value.copy_(torch.rand(value.shape, generator=rng) + 0.3)
                elif value.is_floating_point():
                    value.copy_(torch.randn(value.shape, generator=rng))
                if name == "weight" and value.numel() > 1:
                    value[1] = 0.0
    return module.eval()


def vit(**options: Any) -> nn.Module:
    sizes = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 5,
    }
    return VisionTransformer(**{**sizes, **options})


def convnext(**options: Any) -> nn.Module:
    return ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), num_classes=5, **options)


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def run(module: nn.Module, x: Any) -> Tensor:
    with torch.no_grad():
        output = module(x)
    return output if isinstance(output, Tensor) else output[0]


def change(module: nn.Module, x: Tensor, **options: Any) -> tuple[Fold, float]:
    """Fold `module`, and the largest change of its output on `x` over the largest |output|. Fails
    where nothing was computed.
    """
    before = run(module, x)
    assert before.abs().max() > 0
    result = fold(module, x, **options)
    return result, float((run(module, x) - before).abs().max() / before.abs().max())


def state(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    same_names = list(first) == list(second)
    return same_names and all(torch.equal(first[name], second[name]) for name in first)


def kept(result: Fold) -> dict[str, str]:
    """Why, by layer."""
    return {
        outcome.layer: outcome.reason for outcome in result.outcomes if outcome.status == "kept"
    }


def folded(result: Fold) -> dict[str, tuple[str, str]]:
    """Direction and target, by layer."""
    return {
        outcome.layer: (outcome.direction, outcome.into)
        for outcome in result.outcomes
        if outcome.status == "folded"
    }


class Together(nn.Module):
    """Modules side by side, each with an input of its own: one trace serves for all of them."""

    def __init__(self, nets: list[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, **inputs: Tensor) -> list[Any]:
        return [net(inputs[f"x{index}"]) for index, net in enumerate(self.nets)]


def fold_together(
    nets: dict[str, tuple[nn.Module, tuple[int, ...]]], dtype: torch.dtype
) -> dict[str, SimpleNamespace]:
    """By name: the outcomes within the module, how far its output moved, whether the fold and its
    undo changed its parameters.
    """
    root = Together([net for net, _ in nets.values()])
    root.training = False  # of the root alone: one case is a norm in training mode
    shapes = [shape for _, shape in nets.values()]
    x = {f"x{index}": inputs(*shape, dtype=dtype) for index, shape in enumerate(shapes)}
    before, original = outputs(root, x), [parameters(net) for net in root.nets]
    result = fold(root, x)
    after, changed = outputs(root, x), _changed(root, original)
    result.undo()
    still_changed = _changed(root, original)
    results = {}
    for index, name in enumerate(nets):
        assert before[index].abs().max() > 0
        path = f"nets.{index}."
        rows = [row for row in result.outcomes if row.layer.startswith(path)]
        change = (after[index] - before[index]).abs().max() / before[index].abs().max()
        results[name] = SimpleNamespace(
            outcomes=[
                (
                    row.status,
                    row.direction,
                    row.into.replace(path, ""),
                    row.reason.replace(path, ""),
                )
                for row in rows
            ],
            relative=float(change),
            changed=changed[index],
            undone=not still_changed[index],
        )
    return results


def _changed(root: Together, original: list[dict[str, Tensor]]) -> list[bool]:
    """For each network: has it other parameters than the original ones?"""
    pairs = zip(root.nets, original, strict=True)
    return [not same(parameters(net), values) for net, values in pairs]


def outputs(root: nn.Module, x: dict[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return root(**x)


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}

"""timm's optimizers for a recipe, and which parameters go without weight decay."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from probe.errors import UsageError, first_line, unknown
from probe.layer_names import split_patterns, unmatched
from probe.training.recipe import Recipe
from probe.training.schedules import base_rate

ONE_DIMENSIONAL, NONE = "1d", "none"


def create_optimizer(
    module: nn.Module, recipe: Recipe, groups: list[dict[str, Any]] | None = None
) -> torch.optim.Optimizer:
    """groups: of parameters, in place of those with and without weight decay. Raises UsageError for
    an optimizer that timm does not have, and for patterns of parameters that match none.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    names = [str(name) for name in list_optimizers()]
    if recipe.opt.lower() not in names:
        raise unknown("--opt", recipe.opt, names)
    options: dict[str, Any] = {} if recipe.betas is None else {"betas": recipe.betas}
    try:
        return create_optimizer_v2(
            groups or parameter_groups(module, recipe),
            opt=recipe.opt,
            lr=base_rate(recipe),
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            **options,
        )
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UsageError(f"--opt {recipe.opt}: {first_line(error)}") from error


def parameter_groups(module: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Two groups, without and with weight decay; an empty one is left out."""
    named = {name: each for name, each in module.named_parameters() if each.requires_grad}
    free = undecayed(module, recipe)
    groups = [
        {"params": [named[name] for name in named if name in free], "weight_decay": 0.0},
        {
            "params": [named[name] for name in named if name not in free],
            "weight_decay": recipe.weight_decay,
        },
    ]
    return [group for group in groups if group["params"]]


def undecayed(module: nn.Module, recipe: Recipe) -> set[str]:
    """The names of the trained parameters without weight decay: timm's rule (one-dimensional ones,
    biases and what the model names), none, or those that match a pattern.
    """
    named = [(name, each) for name, each in module.named_parameters() if each.requires_grad]
    if recipe.no_decay == NONE:
        return set()
    if recipe.no_decay == ONE_DIMENSIONAL:
        own = getattr(module, "no_weight_decay", None)
        kept = set(own()) if callable(own) else set()
        return {
            name
            for name, each in named
            if each.ndim <= 1 or name.endswith(".bias") or _matches(name, kept)
        }
    patterns = split_patterns(recipe.no_decay)
    if lost := unmatched([name for name, _ in named], patterns):
        raise UsageError(
            f"--no-decay {recipe.no_decay}: no parameter matches {', '.join(lost)}; accepted: "
            f"{ONE_DIMENSIONAL}, {NONE}, or globs over names such as '*.bias,*.alpha'"
        )
    return {name for name, _ in named if _matches(name, patterns)}


def _matches(name: str, patterns: Any) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)

"""Which parameters learn, and how fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from probe.jobs.converting.networks import Slots
from probe.jobs.converting.paired import norm_of
from probe.training.distilling.asked import ALL

# of the learning rate of the norms' weights: for alpha, and for what is no parameter of a norm
ALPHA_SCALE, REST_SCALE = 0.3, 0.25


@contextmanager
def trained_alone(module: nn.Module, groups: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Only the parameters of these groups ask for gradients."""
    before = {each: each.requires_grad for each in module.parameters()}
    chosen = {id(each) for group in groups for each in group["params"]}
    try:
        for each in before:
            each.requires_grad_(id(each) in chosen)
        yield
    finally:
        for each, asked in before.items():
            each.requires_grad_(asked)
            each.grad = None


def parameter_groups(module: nn.Module, slots: Slots, train: str) -> list[dict[str, Any]]:
    """Groups with their `lr_scale`: weights and biases of the replaced norms, their alphas, and
    with train "all" everything else.
    """
    norms = [norm_of(references[0].new) for references in slots.values()]
    of_norms = [each for norm in norms for each in norm.parameters()]
    known = {id(each) for each in of_norms}
    rest = [each for each in module.parameters() if id(each) not in known]
    groups = [
        {"params": [each for each in of_norms if each.numel() > 1], "lr_scale": 1.0},
        {"params": [each for each in of_norms if each.numel() == 1], "lr_scale": ALPHA_SCALE},
        {"params": rest if train == ALL else [], "lr_scale": REST_SCALE},
    ]
    return [group for group in groups if group["params"]]

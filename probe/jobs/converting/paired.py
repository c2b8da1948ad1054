"""One layer read in two networks at once: what the original gives out at every token, how much the
outputs of the network depend on it there, and what reaches its replacement at the same token.

The reading stands in the layer's slot and needs no hook. The pass through the converted network
ends at the layer: what lies behind it is not computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from probe.errors import ProbeError
from probe.jobs.capturing.forward import on_device
from probe.jobs.converting.evaluate import Slots, activate, raw_logits
from probe.jobs.inputs import Inputs
from probe.models.loading.load import Model
from probe.models.replacing.build import NormAct


@dataclass(frozen=True)
class Pair:
    """One batch at one layer, (tokens, C) each. target: the original's output before any
    activation; weight (tokens, 1): mean square over channels of the derivative of the network's
    outputs with respect to it.
    """

    inputs: Tensor  # (..., as the layer takes it) of the converted network
    target: Tensor
    weight: Tensor


class _Reached(Exception):
    """The converted network came as far as the layer."""


class _Reading(nn.Module):
    """In the slot of one layer: passes the original's output on and keeps it, or keeps what comes
    in and ends the pass.
    """

    def __init__(self, old: nn.Module) -> None:
        super().__init__()
        self.old = old
        self.original = True
        self.inputs: Tensor | None = None
        self.target: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        """What a model reads of its norms (weight, eps) is the original's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("old"), name)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.original:
            self.inputs = x.detach().clone()
            raise _Reached
        with _bare(self.old) as behind:
            y = self.old(x, *args, **kwargs)
        self.target = y.detach().requires_grad_()
        # a copy: what comes next may overwrite it in place
        return behind(self.target.clone())


@contextmanager
def _bare(norm: nn.Module) -> Iterator[Any]:
    """A norm+activation module without its drop and activation; gives what these two would do."""
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)
    if not isinstance(drop, nn.Module) or not isinstance(act, nn.Module):
        yield lambda y: y
        return
    norm.drop, norm.act = nn.Identity(), nn.Identity()
    try:
        yield lambda y: act(drop(y))
    finally:
        norm.drop, norm.act = drop, act


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient."""
    asked = [each for each in module.parameters() if each.requires_grad]
    try:
        for each in asked:
            each.requires_grad_(False)
        yield
    finally:
        for each in asked:
            each.requires_grad_(True)


def read_pairs(
    model: Model, slots: Slots, layer: str, batches: Sequence[Inputs], axis: int
) -> Iterator[Pair]:
    """The pairs of `layer`, batch by batch; axis: of the channels.

    Before and after, every layer of `slots` is the replaced one. Raises ProbeError for a layer
    that a pass does not reach.
    """
    reading = _Reading(slots[layer][0].old)
    generator = torch.Generator().manual_seed(0)
    try:
        for batch in batches:
            activate(slots, ())
            _hold(slots, layer, reading)
            weight = _sensitivity(model, reading, batch, generator)
            activate(slots, slots)
            _hold(slots, layer, reading)
            inputs, target = _reached(model, reading, batch, layer), reading.target
            assert target is not None
            yield Pair(inputs, target.detach(), weight.mean(axis, keepdim=True))
    finally:
        activate(slots, slots)


def _hold(slots: Slots, layer: str, reading: _Reading) -> None:
    for slot in slots[layer]:
        slot.hold(reading)


def _sensitivity(
    model: Model, reading: _Reading, batch: Inputs, generator: torch.Generator
) -> Tensor:
    """Square of the derivative of the outputs, in a random direction of them, with respect to the
    layer's output: on average over directions the diagonal of J^T J.
    """
    reading.original = True
    logits = raw_logits(_forward(model, batch))
    signs = torch.randint(0, 2, logits.shape, generator=generator) * 2 - 1
    assert reading.target is not None
    (gradient,) = torch.autograd.grad((logits * signs.to(logits)).sum(), reading.target)
    return gradient.square()


def _reached(model: Model, reading: _Reading, batch: Inputs, layer: str) -> Tensor:
    """What reaches the layer in the converted network."""
    reading.original, reading.inputs = False, None
    try:
        with torch.no_grad():
            _forward(model, batch)
    except _Reached:
        assert reading.inputs is not None
        return reading.inputs
    raise ProbeError(f"{layer} was not reached in the converted network")


def _forward(model: Model, batch: Inputs) -> Any:
    """One pass, with gradients where they are on."""
    batch = on_device(batch, model.module)
    return model.module(*batch.args, **batch.kwargs)


def norm_of(module: nn.Module) -> Any:
    """The norm itself of what was put in place of a layer."""
    return module.norm if isinstance(module, NormAct) else module

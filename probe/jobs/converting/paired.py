"""One layer read in two networks at once: what the original gives out at every token, how much the
outputs of the network depend on it there, and what reaches its replacement at the same token.

The readings stand in the slots of the layers and need no hook. A pass that reads one layer ends
there: what lies behind it is not computed. How much the outputs depend on each layer is found for
all layers in one backward pass per batch.
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
from probe.jobs.converting.networks import Slots, activate, raw_logits
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
    """A pass came as far as the layer."""


class _Reading(nn.Module):
    """In the slot of one layer. In the original network it keeps what the layer gives out, before
    any activation, in the converted one what comes in; unless it `passes` them on the pass ends.
    """

    def __init__(self, old: nn.Module, passes: bool) -> None:
        super().__init__()
        self.old, self.passes = old, passes
        self.original = True
        self.kept: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        """What a model reads of its norms (weight, eps) is the original's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("old"), name)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.original:
            self.kept = x.detach().clone()
            raise _Reached
        with _bare(self.old) as behind:
            self.kept = self.old(x, *args, **kwargs)
        if not self.passes:
            raise _Reached
        if not self.kept.requires_grad:  # the first layer: nothing before it asks for gradients
            self.kept.requires_grad_()
        # a copy: what comes next may overwrite it in place
        return behind(self.kept.clone())


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


def sensitivities(model: Model, slots: Slots, batches: Sequence[Inputs]) -> dict[str, list[Tensor]]:
    """For each layer and batch the mean square, over channels, of the derivative of the original
    network's outputs with respect to the layer's output: (..., 1), 1 on the axis of the channels.

    One random direction of the outputs per batch: on average the diagonal of J^T J.
    """
    readings = {layer: _Reading(slots[layer][0].old, passes=True) for layer in slots}
    generator = torch.Generator().manual_seed(0)
    found: dict[str, list[Tensor]] = {layer: [] for layer in slots}
    try:
        for layer, reading in readings.items():
            _hold(slots, layer, reading)
        for batch in batches:
            for layer, gradient in _gradients(model, readings, batch, generator).items():
                axis = norm_of(slots[layer][0].new).axis
                found[layer].append(gradient.square().mean(axis, keepdim=True))
    finally:
        activate(slots, slots)
    return found


def _gradients(
    model: Model, readings: dict[str, _Reading], batch: Inputs, generator: torch.Generator
) -> dict[str, Tensor]:
    with torch.enable_grad():
        logits = raw_logits(_forward(model, batch))
        signs = torch.randint(0, 2, logits.shape, generator=generator) * 2 - 1
        kept = [reading.kept for reading in readings.values()]
        assert all(each is not None for each in kept)
        total = (logits * signs.to(logits)).sum()
        gradients = torch.autograd.grad(total, kept, allow_unused=True)  # type: ignore[arg-type]
    return {
        layer: torch.zeros_like(reading.kept) if gradient is None else gradient  # type: ignore[arg-type]
        for (layer, reading), gradient in zip(readings.items(), gradients, strict=True)
    }


def read_pairs(
    model: Model, slots: Slots, layer: str, batches: Sequence[Inputs], weights: Sequence[Tensor]
) -> Iterator[Pair]:
    """The pairs of `layer`, batch by batch; weights: its `sensitivities`.

    Before and after, every layer of `slots` is the replaced one. Raises ProbeError for a layer
    that a pass does not reach.
    """
    reading = _Reading(slots[layer][0].old, passes=False)
    try:
        for batch, weight in zip(batches, weights, strict=True):
            activate(slots, ())
            _hold(slots, layer, reading)
            reading.original = True
            target = _reached(model, reading, batch, layer)
            activate(slots, slots)
            _hold(slots, layer, reading)
            reading.original = False
            yield Pair(_reached(model, reading, batch, layer), target, weight)
    finally:
        activate(slots, slots)


def _hold(slots: Slots, layer: str, reading: _Reading) -> None:
    for slot in slots[layer]:
        slot.hold(reading)


def _reached(model: Model, reading: _Reading, batch: Inputs, layer: str) -> Tensor:
    """What the reading keeps of a pass that ends there."""
    reading.kept = None
    try:
        with torch.no_grad():
            _forward(model, batch)
    except _Reached:
        assert reading.kept is not None
        return reading.kept
    raise ProbeError(f"{layer} was not reached by a forward pass")


def _forward(model: Model, batch: Inputs) -> Any:
    """One pass, with gradients where they are on."""
    batch = on_device(batch, model.module)
    return model.module(*batch.args, **batch.kwargs)


def norm_of(module: nn.Module) -> Any:
    """The norm itself of what was put in place of a layer."""
    return module.norm if isinstance(module, NormAct) else module

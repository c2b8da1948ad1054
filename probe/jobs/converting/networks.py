"""A network whose layers may be replaced, and what it gives out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from probe.errors import UsageError
from probe.models.loading.load import Model
from probe.models.replacing.swap import ModuleSlot

Slots = Mapping[str, Sequence[ModuleSlot]]  # layer -> where the model refers to it
WHOLE = "the whole network"  # the one layer of `as_one`


def activate(slots: Slots, replaced: Collection[str]) -> None:
    """Let these layers be the replaced ones, all others the original."""
    for layer, references in slots.items():
        for slot in references:
            slot.hold(slot.new if layer in replaced else slot.old)


def logits_of(output: Any) -> Tensor:
    """Logits (B, K) float64 on the host, of a tensor, a tuple that begins with one, or an object
    with `.logits`.

    Raises UsageError for any other output: KL and agreement need a classifier.
    """
    return raw_logits(output).detach().to("cpu", torch.float64)


def raw_logits(output: Any) -> Tensor:
    """The logits (B, K) of an output as they are. Raises UsageError for any other output."""
    logits = getattr(output, "logits", output)
    if isinstance(logits, tuple | list) and logits:
        logits = logits[0]
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        shape = f" of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else ""
        raise UsageError(
            f"the model gives a {type(logits).__name__}{shape}; logits (images, classes) are "
            "needed to compare models"
        )
    return logits


class Rivals(nn.Module):
    """The original and the new layer in one slot. Passes the original's output on and remembers
    it; once it is `changed`, the new one's.

    alone, behind, size: sums over elements of the squared error of the new layer where the original
    passes, of that behind changed layers, and of the original's squared output.
    """

    def __init__(self, old: nn.Module, new: nn.Module) -> None:
        super().__init__()
        self.old, self.new = old, new
        self.training = old.training
        self.changed = False
        self.alone = self.behind = self.size = 0.0
        self._kept: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        """What a model reads of its norms (weight, eps) is the original's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("old"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        changed = self.new(*args, **kwargs)
        if self.changed:
            if self._kept is not None:
                self.behind += _squares(changed.double() - self._kept.double())
                self._kept = None  # its memory is needed for the next batch only
            return changed
        original = self.old(*args, **kwargs)
        self.alone += _squares(changed.double() - original.double())
        self.size += _squares(original.double())
        self._kept = original.clone()  # what comes next may overwrite it in place
        return original


def _squares(values: Tensor) -> float:
    return float(values.square().sum())


def hold_rivals(slots: Slots) -> dict[str, Rivals]:
    """Put both layers into each slot."""
    rivals = {layer: Rivals(each[0].old, each[0].new) for layer, each in slots.items()}
    for layer, references in slots.items():
        for slot in references:
            slot.hold(rivals[layer])
    return rivals


class _Holder(nn.Module):
    """Has no other part than a network, whose mode it is in."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.network(*args, **kwargs)


def as_one(original: Model, changed: Model) -> tuple[Model, Slots]:
    """Two networks as one, whose only replaceable layer, `WHOLE`, is all of it."""
    holder, old, new = _Holder(original.module), original.module, changed.module
    slot = ModuleSlot(holder, "network", old, new, state=())
    return replace(original, module=holder), {WHOLE: [slot]}

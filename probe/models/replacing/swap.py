"""Replace normalization layers of a model in place, and put them back.

1. Every replacement is built before the first is installed, so an error leaves the model as it was.
2. A module is replaced wherever the model refers to it: in its parent's attribute, in Sequential,
   ModuleList and ModuleDict entries, and at every further place of a shared module.
3. Replacements hold tensors of their own; `undo` brings back the original module objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from probe.curves import StandIn
from probe.errors import UsageError
from probe.models.reading.layers import list_norm_layers, norm_modules, unwrapped
from probe.models.reading.norm_types import NormType
from probe.models.replacing.build import build
from probe.models.replacing.initial_values import NotReplaced
from probe.models.replacing.spec import ReplacementSpec
from probe.records import Layer

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outcome:
    """What became of one layer."""

    layer: str
    old: str  # kind of the layer before
    new: str  # name of the norm in its place; empty where it is kept
    channels: int
    init: str
    status: str  # replaced, kept
    reason: str  # why it is kept, or a remark on the start values


@dataclass(frozen=True)
class ModuleSlot:
    """One reference to a replaced module: slot.hold(slot.old) or slot.hold(slot.new)."""

    parent: nn.Module
    key: str
    old: nn.Module
    new: nn.Module
    state: tuple[Any, ...]  # mode, device and dtype of `new` when it was installed

    def hold(self, module: nn.Module) -> None:
        """Let the model refer to this module here."""
        self.parent._modules[self.key] = module

    def check(self) -> None:
        """Raises UsageError where something else than the replacement is here by now."""
        if self.parent._modules.get(self.key) is not self.new:
            where = f"{self.key} of {type(self.parent).__name__}"
            raise UsageError(
                f"{where} was replaced again after this swap: undo that replacement first"
            )

    def restore(self) -> None:
        """The original again; it follows where its replacement was moved or switched to since."""
        training, device, dtype = _state(self.new)
        if training is not self.state[0]:
            self.old.train(training)
        if (device, dtype) != self.state[1:]:
            self.old.to(device=device, dtype=dtype)
        self.hold(self.old)


class Swap:
    """The layers that were replaced in `module`. `undo` puts the original modules back; a `with`
    block does so at its end.

        with swap(module, "dyt") as swapped:
            swapped.report  # what became of each layer
    """

    def __init__(self, module: nn.Module, outcomes: list[Outcome], slots: list[ModuleSlot]) -> None:
        self.module = module
        self.outcomes = outcomes
        self.slots = slots
        self._after = ExitStack()

    @property
    def report(self) -> pd.DataFrame:
        """One row per layer that was asked for: layer, old, new, channels, init, status (replaced,
        kept), reason.
        """
        import pandas as pd

        return pd.DataFrame([asdict(outcome) for outcome in self.outcomes])

    def after_undo(self, action: Callable[[], Any]) -> None:
        """Call `action` when the swap is undone."""
        self._after.callback(action)

    def undo(self) -> None:
        """Put the original modules back; calling it again changes nothing.

        They take the mode and the device that their replacements have by now. Raises UsageError,
        and changes nothing, where a later swap still holds one of the slots.
        """
        for slot in self.slots:
            slot.check()
        while self.slots:
            self.slots.pop().restore()
        self._after.close()

    def __enter__(self) -> Swap:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        replaced = sum(outcome.status == "replaced" for outcome in self.outcomes)
        return (
            f"Swap({type(self.module).__name__}, {replaced} of {len(self.outcomes)} layers "
            "replaced)"
        )


def swap(
    module: nn.Module,
    name: str | Callable[..., nn.Module],
    *,
    layers: str = "*",
    init: str = "default",
    stand_ins: Mapping[str, StandIn] | None = None,
    left_out: Mapping[str, str] | None = None,
    **options: Any,
) -> Swap:
    """Replace the normalization layers of `module` that match the glob `layers` by the norm `name`
    of the zoo.

    init: `default`, `match` or `fitted` (probe.models.replacing.spec); stand_ins: layer -> curve
    for `fitted`; left_out: layer -> why it has no curve; options go to the norm. Device, dtype,
    mode and requires_grad stay as they were.
    Raises UsageError where nothing can be replaced, and for an unknown name, init or option.
    """
    module = unwrapped(module)
    spec = ReplacementSpec(name, init, stand_ins, left_out or {}, options)
    chosen = list_norm_layers(module, layers)
    modules = {path: (child, kind) for path, child, kind in norm_modules(module)}
    context = _context(module)
    replacements: list[tuple[nn.Module, nn.Module]] = []
    outcomes = []
    for layer in chosen:
        old, kind = modules[layer.name]
        new, outcome = _replacement(layer, old, kind, spec, context)
        outcomes.append(outcome)
        if new is not None:
            replacements.append((old, new))
    if not replacements:
        raise _nothing_replaced(spec, outcomes)
    swapped = Swap(module, outcomes, _install(module, replacements))
    _forbid_fused_path(swapped)
    return swapped


def _replacement(
    layer: Layer, old: nn.Module, kind: NormType, spec: ReplacementSpec, context: Mapping[str, Any]
) -> tuple[nn.Module | None, Outcome]:
    try:
        if not layer.name:
            raise NotReplaced(
                "the model itself is this layer and has no parent; put it into nn.Sequential"
            )
        with torch.inference_mode(False):  # tensors made in inference mode could never learn
            new, name, remark = build(spec, layer.name, old, kind, context)
        return new, Outcome(
            layer.name, layer.kind, name, layer.channels, spec.init, "replaced", remark
        )
    except NotReplaced as reason:
        return None, Outcome(layer.name, layer.kind, "", layer.channels, "", "kept", str(reason))


def _nothing_replaced(spec: ReplacementSpec, outcomes: list[Outcome]) -> UsageError:
    """The commonest reason stands for all."""
    (reason, count), *others = Counter(outcome.reason for outcome in outcomes).most_common()
    which = f"{count} layers"
    if others:
        which = f"{count} of {len(outcomes)} layers, others for other reasons"
    return UsageError(
        f"no layer was replaced by {spec.name}: "
        f"{reason}{f' ({which})' if len(outcomes) > 1 else ''}"
    )


def _context(module: nn.Module) -> dict[str, Any]:
    """What the model tells its norms: a tensor like its own; of a timm model with one token grid,
    that grid and the prefix tokens.
    """
    floating = (parameter for parameter in module.parameters() if parameter.is_floating_point())
    context: dict[str, Any] = {"like": next(floating, torch.empty(0))}
    # networks whose grid changes on the way have none of these
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    prefix = getattr(module, "num_prefix_tokens", None)
    if isinstance(grid, tuple) and isinstance(prefix, int):
        context |= {"grid": grid, "prefix_tokens": prefix}
    return context


def _install(
    module: nn.Module, replacements: list[tuple[nn.Module, nn.Module]]
) -> list[ModuleSlot]:
    """Put each new module wherever its old one is."""
    new_of = {id(old): new for old, new in replacements}
    slots = [
        ModuleSlot(parent, key, child, new, _state(new))
        for parent in module.modules()
        for key, child in parent._modules.items()
        if child is not None and (new := new_of.get(id(child))) is not None
    ]
    for slot in slots:
        slot.hold(slot.new)
    return slots


def _state(module: nn.Module) -> tuple[Any, ...]:
    """Mode, device and dtype; None for the latter two without parameters."""
    floating = (parameter for parameter in module.parameters() if parameter.is_floating_point())
    tensor = next(floating, None)
    return module.training, *((tensor.device, tensor.dtype) if tensor is not None else (None, None))


# torch's encoder layer gives the weights of its norms to a fused kernel, a LayerNorm whatever the
# norms are, but only where its activation is one that the kernel knows; and the encoder makes
# nested tensors for that kernel only.
_FUSED = (
    (nn.TransformerEncoderLayer, "activation_relu_or_gelu", 0),
    (nn.TransformerEncoder, "use_nested_tensor", False),
)


def _forbid_fused_path(swapped: Swap) -> None:
    """Make torch's encoders call their norms, where some of them were replaced."""
    new = {id(slot.new) for slot in swapped.slots}
    for parent in swapped.module.modules():
        for kind, name, off in _FUSED:
            if isinstance(parent, kind) and any(id(child) in new for child in parent.modules()):
                swapped.after_undo(partial(setattr, parent, name, getattr(parent, name)))
                setattr(parent, name, off)

"""Fold: move the affine maps of normalization layers into the linear layers around them, where that
is exact at evaluation.

A layer that is affine as a whole (BatchNorm with running statistics, UnifiedNorm, LearnableScaler,
RepBatchNorm) disappears; of the others the weight and bias move into the linear layers that read
them, and the alpha of a DyT into the one before it. How it is done, and what can be in the way:
probe.models.folding. A folded module is for evaluation: statistics that are gone cannot be trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from probe.errors import ProbeError, UsageError
from probe.models.folding.affine_maps import NormLayer
from probe.models.folding.edits import Edits
from probe.models.folding.example import deviation, example_of
from probe.models.folding.graph import Flow
from probe.models.folding.plan import Move, Outcome, Planner
from probe.models.folding.trial import Scratch
from probe.models.loading.load import Model
from probe.models.reading.layers import list_norm_layers, norm_modules, unwrapped

if TYPE_CHECKING:
    import pandas as pd

_MARK = "folded_layers"  # attribute of a folded module: the paths of the layers that are gone


class Fold:
    """What was folded in `module`. `undo` brings back the original modules and parameters; a `with`
    block does so at its end.

    removed: paths of the layers that are gone. biases: names of the parameters that were created.
    deviation: largest change of an output on the example, in the module's own dtype; relative: the
    same over the largest |output|.
    """

    def __init__(
        self,
        module: nn.Module,
        outcomes: list[Outcome],
        scratch: Scratch,
        edits: Edits,
        change: tuple[float, float],
    ) -> None:
        self.module = module
        self.outcomes = outcomes
        self.removed = list(scratch.removed)
        self.biases = [f"{path}.{name}".lstrip(".") for path, name in scratch.created]
        self.deviation, self.relative = change
        self._edits = edits
        self._state = _state(module)

    @property
    def report(self) -> pd.DataFrame:
        """One row per map: layer, kind, into, direction (before, after, affine, alpha), status
        (folded, kept), reason.
        """
        import pandas as pd

        columns = list(Outcome.__dataclass_fields__)
        return pd.DataFrame([asdict(outcome) for outcome in self.outcomes], columns=columns)

    def undo(self) -> None:
        """Everything as it was; calling it again changes nothing. What comes back follows where the
        module was moved since.
        """
        now = _state(self.module)
        for old in self._edits.undo():
            if isinstance(old, nn.Module):
                old.train(now[0])
            if now[1:] != self._state[1:]:
                _move(old, *now[1:])
        if hasattr(self.module, _MARK):
            delattr(self.module, _MARK)

    def __enter__(self) -> Fold:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        folded = sum(outcome.status == "folded" for outcome in self.outcomes)
        return (
            f"Fold({type(self.module).__name__}, {folded} of {len(self.outcomes)} affine maps "
            "folded)"
        )


def fold(module: nn.Module | Model, example: Any = None, *, layers: str = "*") -> Fold:
    """Fold in place what can be folded exactly; the answer has `.module`, `.report` and `.undo()`.

    example: an input to trace and to check on, a tensor, a tuple whose first item is the input, or
    a mapping of keyword arguments; None: a random batch of the model's input size. layers: glob
    over module paths, several joined by commas.

    Layers that cannot be folded are kept and reported with the reason. Raises UsageError for a
    module in training mode, one that is folded already, one without normalization layers or one
    that does not run on the example; ProbeError where it cannot be traced.
    """
    size = module.input_size if isinstance(module, Model) else ()
    module = _checked(module.module if isinstance(module, Model) else module)
    chosen = {layer.name for layer in list_norm_layers(module, layers)}
    found = [
        NormLayer(path, child, kind) for path, child, kind in _outermost(module) if path in chosen
    ]
    example = example_of(module, example, size)
    before = example.checked_outputs(module)
    scratch = Scratch(module, example)
    planner = Planner(Flow(scratch.module, scratch.example.args, scratch.example.kwargs), found)
    refused = scratch.make(planner.plan())
    edits = scratch.install(module)
    change = deviation(before, example.outputs(module))
    if change[1] == torch.inf:
        edits.undo()
        raise ProbeError(
            "folded weights are too large for the module's dtype: fold it in float32, then "
            "convert it"
        )
    mark_folded(module, list(scratch.removed))
    return Fold(module, _outcomes(planner, refused), scratch, edits, change)


def mark_folded(module: nn.Module, removed: Sequence[str]) -> None:
    """Note on the module that it is folded."""
    setattr(module, _MARK, tuple(removed))


def _checked(module: Any) -> nn.Module:
    """The module behind wrappers. Raises UsageError where it cannot be folded as it is."""
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"a {type(module).__name__} is no model; give an nn.Module or what load_model returns"
        )
    module = unwrapped(module)
    if module.training:
        raise UsageError(
            f"{type(module).__name__} is in training mode: folding is exact at evaluation only; "
            "call .eval() first"
        )
    if hasattr(module, _MARK):
        raise UsageError(
            f"{type(module).__name__} is folded already; call .undo() of that fold first"
        )
    return module


def _outermost(module: nn.Module) -> list[Any]:
    """The normalization layers that are no part of another one."""
    every = list(norm_modules(module))
    paths = [path for path, _, _ in every]
    return [item for item in every if not any(item[0].startswith(f"{path}.") for path in paths)]


def _outcomes(planner: Planner, refused: dict[Move, str]) -> list[Outcome]:
    """One row per wish, in the order of the layers."""
    moves = {(move.layer.path, move.direction): move for move in planner.moves}
    rows = []
    for layer, directions in planner.wishes:
        kind = layer.kind.kind
        move = next(
            (
                moves[layer.path, direction]
                for direction in directions
                if (layer.path, direction) in moves
            ),
            None,
        )
        if move is None:
            direction = directions[0] if len(directions) == 1 else ""
            rows.append(
                Outcome(
                    layer.path,
                    kind,
                    "",
                    direction,
                    "kept",
                    planner.reasons[layer.path, directions[0]],
                )
            )
        else:
            reason = refused.get(move, "")
            rows.append(
                Outcome(
                    layer.path,
                    kind,
                    move.into,
                    move.direction,
                    "kept" if reason else "folded",
                    reason,
                )
            )
    order = [layer.path for layer in planner.layers]
    return sorted(rows, key=lambda row: order.index(row.layer))


def _state(module: nn.Module) -> tuple[bool, torch.device, torch.dtype]:
    tensor = next(
        (parameter for parameter in module.parameters() if parameter.is_floating_point()),
        torch.empty(0),
    )
    return module.training, tensor.device, tensor.dtype


def _move(old: Any, device: torch.device, dtype: torch.dtype) -> None:
    if isinstance(old, nn.Module):
        old.to(device=device, dtype=dtype)
    elif isinstance(old, Tensor):
        old.data = old.data.to(device=device, dtype=dtype)


__all__ = ["Fold", "fold", "mark_folded"]

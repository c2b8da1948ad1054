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
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from probe.errors import ProbeError, UsageError
from probe.layer_names import Patterns
from probe.models.folding.affine_maps import NormLayer
from probe.models.folding.edits import Edits
from probe.models.folding.example import deviation, example_of
from probe.models.folding.graph import FoldGraph
from probe.models.folding.plan import Candidate, Fusion, Outcome, Planner
from probe.models.folding.trial import Trial
from probe.models.loading.load import Model
from probe.models.reading.layers import list_norm_layers, norm_modules, unwrapped

if TYPE_CHECKING:
    import pandas as pd

_MARK = "folded_layers"  # attribute of a folded module: the paths of the layers that are gone


class Fold:
    """What was folded in `module`. `undo` brings back the original modules and parameters; a `with`
    block does so at its end.

        with fold(module, images) as result:
            result.report  # one row per affine map
            module(images)

    removed: paths of the layers that are gone. biases: names of the parameters that were created.
    deviation: largest change of an output on the example, in the module's own dtype; relative: the
    same over the largest |output|.
    """

    def __init__(
        self,
        module: nn.Module,
        outcomes: list[Outcome],
        trial: Trial,
        edits: Edits,
        change: tuple[float, float],
    ) -> None:
        self.module = module
        self.outcomes = outcomes
        self.removed = list(trial.removed)
        self.biases = [f"{path}.{name}".lstrip(".") for path, name in trial.created]
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
        state = _state(self.module)
        for restored in self._edits.undo():
            if isinstance(restored, nn.Module):
                restored.train(state.training)
            if (state.device, state.dtype) != (self._state.device, self._state.dtype):
                _move(restored, state.device, state.dtype)
        if hasattr(self.module, _MARK):
            delattr(self.module, _MARK)

    def __enter__(self) -> Fold:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        name, count = type(self.module).__name__, len(self.outcomes)
        folded = sum(outcome.status == "folded" for outcome in self.outcomes)
        return f"Fold({name}, {folded} of {count} affine maps folded)"


def fold(module: nn.Module | Model, example: Any = None, *, layers: Patterns = "*") -> Fold:
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
    norm_layers = _norm_layers(module, layers)
    example = example_of(module, example, size)
    before = example.checked_outputs(module)
    trial = Trial(module, example)
    graph = FoldGraph(trial.module, trial.example.args, trial.example.kwargs)
    planner = Planner(graph, norm_layers)
    refused = trial.apply(planner.plan())
    edits = trial.write_to(module)
    change = deviation(before, example.outputs(module))
    if change[1] == torch.inf:
        edits.undo()
        raise ProbeError(
            "folded weights are too large for the module's dtype: fold it in float32, then "
            "convert it"
        )
    mark_folded(module, list(trial.removed))
    return Fold(module, _outcomes(planner, refused), trial, edits, change)


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


def _norm_layers(module: nn.Module, layers: Patterns) -> list[NormLayer]:
    """The normalization layers of these names that are no part of another one."""
    names = {layer.name for layer in list_norm_layers(module, layers)}
    every = [NormLayer(*path_module_type) for path_module_type in norm_modules(module)]
    inner = {
        layer.path
        for layer in every
        if any(layer.path.startswith(f"{outer.path}.") for outer in every)
    }
    return [layer for layer in every if layer.path in names - inner]


def _outcomes(planner: Planner, refused: dict[Fusion, str]) -> list[Outcome]:
    """One row per candidate, in the order of the layers."""
    fusions = {fusion.candidate: fusion for fusion in planner.fusions}
    rows = []
    for candidate in planner.candidates:
        if (fusion := fusions.get(candidate)) is not None:
            rows.append(_outcome_of_fusion(fusion, refused.get(fusion, "")))
        else:
            rows.append(_outcome_without(candidate, planner.reasons[candidate]))
    order = {layer.path: index for index, layer in enumerate(planner.layers)}
    return sorted(rows, key=lambda row: order[row.layer])


def _outcome_of_fusion(fusion: Fusion, refusal: str) -> Outcome:
    layer, status = fusion.layer, "kept" if refusal else "folded"
    return Outcome(layer.path, layer.kind, fusion.into, fusion.direction.value, status, refusal)


def _outcome_without(candidate: Candidate, reason: str) -> Outcome:
    layer, directions = candidate.layer, candidate.directions
    direction = directions[0].value if len(directions) == 1 else ""
    return Outcome(layer.path, layer.kind, "", direction, "kept", reason)


class _State(NamedTuple):
    """What a user may have changed of a module between fold and undo."""

    training: bool
    device: torch.device
    dtype: torch.dtype


def _state(module: nn.Module) -> _State:
    floating = (parameter for parameter in module.parameters() if parameter.is_floating_point())
    tensor = next(floating, torch.empty(0))
    return _State(module.training, tensor.device, tensor.dtype)


def _move(restored: Any, device: torch.device, dtype: torch.dtype) -> None:
    if isinstance(restored, nn.Module):
        restored.to(device=device, dtype=dtype)
    elif isinstance(restored, Tensor):
        restored.data = restored.data.to(device=device, dtype=dtype)


__all__ = ["Fold", "fold", "mark_folded"]

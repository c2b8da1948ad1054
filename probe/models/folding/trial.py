"""A float64 copy of a module on which fusions are tried: each is applied, the outputs on the
example are compared, and it stays or goes.

Where the module does not run in float64 the copy has its own dtype, and the tolerance that goes
with it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from probe.errors import named_first_line
from probe.models.folding.edits import Edits
from probe.models.folding.example import Example, deviation
from probe.models.folding.invariants import projections, unchanged_modules
from probe.models.folding.plan import Fusion

# in float64 not less, since some layers compute in float32 whatever comes
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
HALF_PRECISION_TOLERANCE = 5e-2

ParameterKey = tuple[str, str]  # module path, name of the parameter


class Trial:
    """The copy, the new value of every parameter that a fusion has changed, in float64 on the host,
    and the layers that are gone.

        trial = Trial(module, example)
        refused = trial.apply(fusions)  # fusion -> why it was taken back
        edits = trial.write_to(module)
    """

    def __init__(self, module: nn.Module, example: Example) -> None:
        self.module, self.example, self._reference = _copy(module, example)
        self._tolerance = max(
            TOLERANCES.get(output.dtype, HALF_PRECISION_TOLERANCE) for output in self._reference
        )
        self._reference_projections: dict[str, float] = {}
        self.values: dict[ParameterKey, Tensor] = {}
        # dicts in place of ordered sets: `Edits` takes back entries of dictionaries
        self.removed: dict[str, bool] = {}
        self.created: dict[ParameterKey, bool] = {}

    def apply(self, fusions: Sequence[Fusion]) -> dict[Fusion, str]:
        """Applies the fusions in their order. Returns those that would change the outputs with the
        reason; they are taken back.
        """
        paths = {path for fusion in fusions for path in unchanged_modules([fusion])}
        with projections(self.module, paths) as self._reference_projections:
            self.example.outputs(self.module)
        # nearly always all are right, and one forward pass says so
        edits = [self._apply(fusion) for fusion in fusions]
        if self._objection(fusions) is None:
            return {}
        for edit in reversed(edits):
            edit.undo()
        return self._apply_one_by_one(fusions)

    def _apply_one_by_one(self, fusions: Sequence[Fusion]) -> dict[Fusion, str]:
        applied: list[Fusion] = []
        refused = {}
        for fusion in fusions:
            edit = self._apply(fusion)
            if (objection := self._objection([*applied, fusion])) is None:
                applied.append(fusion)
            else:
                edit.undo()
                refused[fusion] = objection
        return refused

    def write_to(self, module: nn.Module) -> Edits:
        """The same changes in the original module, cast to its dtypes."""
        edits = Edits()
        for (path, name), value in self.values.items():
            edits.set_parameter(module, path, name, value, _like(module, path, name))
        for path in self.removed:
            edits.remove_norm(module, path)
        return edits

    def _apply(self, fusion: Fusion) -> Edits:
        edits = Edits()
        scale, shift = fusion.layer.map(fusion.direction)
        for linear, channels in fusion.targets:
            weight, bias = self._value(linear.owner, linear.weight), None
            if linear.has_bias or (linear.owner, linear.bias) in self.values:
                bias = self._value(linear.owner, linear.bias)
            fuse = linear.followed_by if fusion.direction.is_upstream else linear.preceded_by
            weight, bias = fuse(weight, bias, scale[channels], shift[channels])
            self._set(edits, linear.owner, linear.weight, weight)
            if bias is not None:
                self._set(edits, linear.owner, linear.bias, bias)
        self._neutralize(edits, fusion)
        return edits

    def _neutralize(self, edits: Edits, fusion: Fusion) -> None:
        """Take from the layer the map that its neighbours have now."""
        path = fusion.layer.path
        if fusion.direction.removes_layer:
            edits.remove_norm(self.module, path)
            edits.set_entry(self.removed, path, True)
        else:
            for name, value in fusion.layer.neutral_parameters(fusion.direction).items():
                self._set(edits, path, name, value.to("cpu", torch.float64))

    def _value(self, path: str, name: str) -> Tensor:
        if (path, name) in self.values:
            return self.values[path, name]
        parameter = self.module.get_parameter(f"{path}.{name}".lstrip("."))
        return parameter.detach().to("cpu", torch.float64)

    def _set(self, edits: Edits, path: str, name: str, value: Tensor) -> None:
        if self.module.get_submodule(path)._parameters.get(name) is None:
            edits.set_entry(self.created, (path, name), True)
        edits.set_entry(self.values, (path, name), value)
        edits.set_parameter(self.module, path, name, value, _like(self.module, path, name))

    def _objection(self, fusions: Sequence[Fusion]) -> str | None:
        """Why the copy with these fusions is not the same function any more; None if it is."""
        try:
            with projections(self.module, unchanged_modules(fusions)) as by_path:
                outputs = self.example.outputs(self.module)
        except Exception as error:  # code that reads attributes of a layer that is gone
            return f"the model does not run without it ({named_first_line(error)[:120]})"
        _, relative = deviation(self._reference, outputs)
        reference = self._reference_projections
        inside = (abs(value - reference[path]) for path, value in by_path.items())
        if (largest := max([relative, *inside])) <= self._tolerance:
            return None
        return f"the outputs on the example would change by {largest:.1e}"


def _copy(module: nn.Module, example: Example) -> tuple[nn.Module, Example, list[Tensor]]:
    """The module in float64, the example in float64, and the outputs; in the module's own dtype
    where float64 does not run.
    """
    tensors = (*module.parameters(), *module.buffers())
    wide = {id(tensor): _doubled(tensor) for tensor in tensors if tensor.is_floating_point()}
    try:
        # deepcopy takes what its memo holds for a copy: the float32 tensors are never duplicated
        doubled = copy.deepcopy(module, dict(wide))
        inputs = example.to(doubled)
        return doubled, inputs, inputs.outputs(doubled)
    except Exception:  # code of the model that multiplies with float32 tensors of its own
        same = copy.deepcopy(module)
        return same, example, example.outputs(same)


def _doubled(tensor: Tensor) -> Tensor:
    wide = tensor.detach().double()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(wide, requires_grad=tensor.requires_grad)
    return wide


def _like(module: nn.Module, path: str, name: str) -> Tensor:
    """The parameter of this name, or the weight that a new bias belongs to."""
    own = module.get_submodule(path)._parameters
    like = own.get(name)
    if like is None:
        like = own.get(name.removesuffix("bias") + "weight")
    assert like is not None  # a bias is only created beside the weight of its layer
    return like


__all__ = ["Trial"]

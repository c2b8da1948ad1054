"""A float64 copy of a module on which moves are tried: each is made, the outputs on the example are
compared, and it stays or goes.

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
from probe.models.folding.plan import Move
from probe.models.folding.sites import sites, watching

TOLERANCES = {
    torch.float64: 1e-6,
    torch.float32: 1e-3,
}  # in float64 not less, since some layers compute in float32 whatever comes
COARSE = 5e-2  # half precision

Name = tuple[str, str]  # module path, name of the parameter


class Scratch:
    """The copy, the new value of every parameter that a move has changed, in float64 on the host,
    and the layers taken away.
    """

    def __init__(self, module: nn.Module, example: Example) -> None:
        self.module, self.example, self._reference = _copy(module, example)
        self._tolerance = max(TOLERANCES.get(output.dtype, COARSE) for output in self._reference)
        self._marks: dict[str, float] = {}
        self.values: dict[Name, Tensor] = {}
        self.removed: dict[str, bool] = {}
        self.created: dict[Name, bool] = {}

    def make(self, moves: Sequence[Move]) -> dict[Move, str]:
        """Makes the moves in their order. Returns those that would change the outputs with the
        reason; they are not made.
        """
        with watching(
            self.module, {path for move in moves for path in sites([move])}
        ) as self._marks:
            self.example.outputs(self.module)
        edits = [self._make(move) for move in moves]
        if self._refusal(moves) is None:
            return {}
        for edit in reversed(edits):
            edit.undo()
        made: list[Move] = []
        refused = {}
        for move in moves:
            edit = self._make(move)
            if (reason := self._refusal([*made, move])) is None:
                made.append(move)
            else:
                edit.undo()
                refused[move] = reason
        return refused

    def install(self, module: nn.Module) -> Edits:
        """The same changes in the original module, cast to its dtypes."""
        edits = Edits()
        for (path, name), value in self.values.items():
            edits.set_parameter(module, path, name, value, _like(module, path, name))
        for path in self.removed:
            edits.take_away(module, path)
        return edits

    def _make(self, move: Move) -> Edits:
        edits = Edits()
        scale, shift = move.layer.map(move.direction)
        for linear, channels in move.targets:
            weight, bias = self._value(linear.owner, linear.weight), None
            if linear.biased or (linear.owner, linear.bias) in self.values:
                bias = self._value(linear.owner, linear.bias)
            change = linear.followed_by if move.backward else linear.preceded_by
            weight, bias = change(weight, bias, scale[channels], shift[channels])
            self._set(edits, linear.owner, linear.weight, weight)
            if bias is not None:
                self._set(edits, linear.owner, linear.bias, bias)
        path = move.layer.path
        if move.direction in ("before", "after"):
            edits.take_away(self.module, path)
            edits.put(self.removed, path, True)
        else:
            for name, value in move.layer.neutral(move.direction).items():
                self._set(edits, path, name, value.to("cpu", torch.float64))
        return edits

    def _value(self, path: str, name: str) -> Tensor:
        if (path, name) in self.values:
            return self.values[path, name]
        return (
            self.module.get_parameter(f"{path}.{name}".lstrip("."))
            .detach()
            .to("cpu", torch.float64)
        )

    def _set(self, edits: Edits, path: str, name: str, value: Tensor) -> None:
        if self.module.get_submodule(path)._parameters.get(name) is None:
            edits.put(self.created, (path, name), True)
        edits.put(self.values, (path, name), value)
        edits.set_parameter(self.module, path, name, value, _like(self.module, path, name))

    def _refusal(self, moves: Sequence[Move]) -> str | None:
        """Why the copy with these moves made is not the same function any more; None if it is."""
        try:
            with watching(self.module, sites(moves)) as marks:
                found = self.example.outputs(self.module)
        except (
            Exception
        ) as error:  # code of the model that reads attributes of a layer that is gone
            return f"the model does not run without it ({named_first_line(error)[:120]})"
        _, relative = deviation(self._reference, found)
        relative = max(
            [relative, *(abs(value - self._marks[path]) for path, value in marks.items())]
        )
        return (
            None
            if relative <= self._tolerance
            else f"the outputs on the example would change by {relative:.1e}"
        )


def _copy(module: nn.Module, example: Example) -> tuple[nn.Module, Example, list[Tensor]]:
    """The module in float64, the example in float64, and the outputs; in the module's own dtype
    where float64 does not run.
    """
    tensors = [
        tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()
    ]
    wide = {id(tensor): _doubled(tensor) for tensor in tensors}
    try:
        doubled = copy.deepcopy(module, dict(wide))
        inputs = example.to(doubled)
        return doubled, inputs, inputs.outputs(doubled)
    except (
        Exception
    ):  # code of the model that makes float32 tensors of its own and multiplies with them
        same = copy.deepcopy(module)
        return same, example, example.outputs(same)


def _doubled(tensor: Tensor) -> Tensor:
    wide = tensor.detach().double()
    return (
        nn.Parameter(wide, requires_grad=tensor.requires_grad)
        if isinstance(tensor, nn.Parameter)
        else wide
    )


def _like(module: nn.Module, path: str, name: str) -> Tensor:
    """The parameter of this name, or the weight that a new bias belongs to."""
    own = module.get_submodule(path)._parameters
    existing = own.get(name)
    weight = own.get(name.removesuffix("bias") + "weight")
    assert (
        existing is not None or weight is not None
    )  # a bias is only created beside the weight of its layer
    return existing if existing is not None else weight  # type: ignore[return-value]


__all__ = ["Scratch"]

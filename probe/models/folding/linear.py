"""Linear layers and convolutions in the graph, and what a per-channel affine map before or after
one does to its weights.

Weights as torch lays them out: linear (out, in), convolution (out, in / groups, ...), transposed
convolution (in, out / groups, ...). Everything is computed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from probe.models.folding.graph import Blocked, Flow, shape_of

_FORMS = {
    "aten::linear": "linear",
    **{f"aten::conv{axes}d": "conv" for axes in (1, 2, 3)},
    **{f"aten::conv_transpose{axes}d": "transposed" for axes in (1, 2, 3)},
    "aten::convolution": "conv",
}


@dataclass(frozen=True)
class Linear:
    """One call of y = W x + b. `owner` is the module that holds the weight, `weight` and `bias` are
    the names it has there.
    """

    node: Node
    input: Node
    form: str  # linear, conv, transposed
    owner: str
    weight: str
    bias: str
    biased: bool
    outputs: int  # channels
    groups: int
    zero_padded: bool
    even: bool  # every output position reads as many input positions through the same weights

    @property
    def name(self) -> str:
        """Its module path; with the name of the projection where one module holds several
        (nn.MultiheadAttention).
        """
        part = self.weight.removesuffix("weight").rstrip("_")
        return ".".join(piece for piece in (self.owner, part) if piece)

    def axis(self, node: Node) -> int:
        """The axis of the channels in its input or output."""
        if self.form == "linear":
            return -1
        weight = self.node.args[1]
        assert isinstance(weight, Node)
        return len(shape_of(node)) - len(shape_of(weight)) + 1

    def check_shift(self) -> None:
        """Raises Blocked where the output's part that comes from a constant input is not the same
        at every position.
        """
        if self.zero_padded:
            raise Blocked(
                f"{self.name} pads with zeros, where a map with a shift would need the shift"
            )
        if self.form == "transposed" and not self.even:
            raise Blocked(
                f"{self.name} is a transposed convolution, where a shift reaches its output "
                "positions unevenly"
            )

    def followed_by(
        self, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """s (W x + b) + t:  W' = diag(s) W,  b' = s b + t.  Exact for any padding, stride, dilation
        and groups.
        """
        scaled = self._by_output(weight, scale)
        if bias is None and not shift.any():
            return scaled, None
        return scaled, scale * (bias if bias is not None else 0.0) + shift

    def preceded_by(
        self, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """W (s x + t) + b:  W' = W diag(s),  b' = b + W t, summed over input channels and kernel
        positions.
        """
        scaled = self._by_input(weight, scale)
        if bias is None and not shift.any():
            return scaled, None
        return scaled, (bias if bias is not None else 0.0) + self._sums(
            self._by_input(weight, shift)
        )

    def _by_output(self, weight: Tensor, values: Tensor) -> Tensor:
        """The weight times one value per output channel."""
        if self.form == "transposed":
            grouped = weight.unflatten(0, (self.groups, -1))
            return (grouped * _spaced(values.view(self.groups, 1, -1), grouped)).flatten(0, 1)
        return weight * _spaced(values, weight)

    def _by_input(self, weight: Tensor, values: Tensor) -> Tensor:
        """The weight times one value per input channel."""
        if self.form == "transposed":
            return weight * _spaced(values, weight)
        grouped = weight.unflatten(0, (self.groups, -1))
        return (grouped * _spaced(values.view(self.groups, 1, -1), grouped)).flatten(0, 1)

    def _sums(self, weight: Tensor) -> Tensor:
        """Sum over inputs and kernel positions, for each output."""
        if self.form == "transposed":
            return weight.flatten(2).sum(2).unflatten(0, (self.groups, -1)).sum(1).flatten()
        return weight.flatten(1).sum(1)


def linear_of(flow: Flow, node: Node) -> Linear | None:
    """The linear layer that `node` is, None for another operation. Raises Blocked where its weights
    cannot take a map.
    """
    schema = getattr(node.target, "_schema", None)
    form = _FORMS.get(getattr(schema, "name", ""))
    if form is None or schema is None:
        return None
    given = _arguments(node, schema)
    if given["input"] not in flow.sources(node) or given["weight"] in flow.sources(node):
        return None
    what = flow.describe(node)
    weight = _own_parameter(flow, given["weight"], what)
    owner, _, name = weight.rpartition(".")
    bias = name.removesuffix("weight") + "bias"
    if given.get("bias") is not None and _own_parameter(flow, given["bias"], what) != ".".join(
        filter(None, (owner, bias))
    ):
        raise Blocked(f"the bias of {what} is not that of its module")
    if given.get("transposed"):
        form = "transposed"
    return Linear(
        node=node,
        input=given["input"],
        form=form,
        owner=owner,
        weight=name,
        bias=bias,
        biased=given.get("bias") is not None,
        outputs=_outputs(form, given),
        groups=given.get("groups", 1),
        zero_padded=form == "conv" and _pads(given["padding"], shape_of(given["weight"])[2:]),
        even=form != "transposed" or _pointwise(given, shape_of(given["weight"])[2:]),
    )


def _outputs(form: str, given: dict[str, Any]) -> int:
    shape = shape_of(given["weight"])
    return shape[1] * given["groups"] if form == "transposed" else shape[0]


def _pointwise(given: dict[str, Any], kernel: torch.Size) -> bool:
    """A transposed convolution that is a linear layer at each position."""
    steps = [step == 1 for step in (*kernel, *given["stride"])]
    return all(steps) and not _any(given["padding"]) and not _any(given["output_padding"])


def _pads(padding: Any, kernel: torch.Size) -> bool:
    if isinstance(padding, str):
        return padding == "same" and any(size > 1 for size in kernel)
    return _any(padding)


def _any(sizes: Any) -> bool:
    return any(sizes) if isinstance(sizes, list | tuple) else bool(sizes)


def _arguments(node: Node, schema: Any) -> dict[str, Any]:
    """The arguments of a node by name, defaults included."""
    names = [argument.name for argument in schema.arguments]
    defaults = {
        argument.name: argument.default_value
        for argument in schema.arguments
        if argument.has_default_value()
    }
    return {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}


def _own_parameter(flow: Flow, node: Any, what: str) -> str:
    """Name of a parameter that this one operation alone reads. Raises Blocked."""
    name = flow.parameter(node)
    if name is None:
        raise Blocked(f"a weight of {what} is computed or no parameter")
    if (uses := len(flow.readers(node))) > 1:
        raise Blocked(f"{name} is used {uses} times in one forward pass")
    return name


def _spaced(values: Tensor, weight: Tensor) -> Tensor:
    """`values` with axes of length 1 behind, until it broadcasts from the front."""
    return values.view(*values.shape, *[1] * (weight.ndim - values.ndim))


__all__ = ["Linear", "linear_of"]

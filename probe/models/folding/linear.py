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

from probe.models.folding.graph import FoldGraph, NotFoldable, shape_of

_FORMS = {
    "aten::linear": "linear",
    **{f"aten::conv{axes}d": "conv" for axes in (1, 2, 3)},
    **{f"aten::conv_transpose{axes}d": "transposed" for axes in (1, 2, 3)},
    "aten::convolution": "conv",
}


@dataclass(frozen=True)
class LinearOp:
    """One call of y = W x + b. `owner` is the module that holds the weight, `weight` and `bias` are
    the names it has there.
    """

    node: Node
    input: Node
    form: str  # linear, conv, transposed
    owner: str
    weight: str
    bias: str
    has_bias: bool
    out_channels: int
    groups: int
    zero_padded: bool
    uniform: bool  # every output position reads as many input positions through the same weights

    @property
    def name(self) -> str:
        """Its module path; with the name of the projection where one module holds several
        (nn.MultiheadAttention).
        """
        projection = self.weight.removesuffix("weight").rstrip("_")
        return ".".join(part for part in (self.owner, projection) if part)

    def axis(self, node: Node) -> int:
        """The axis of the channels in its input or output."""
        if self.form == "linear":
            return -1
        weight = self.node.args[1]
        assert isinstance(weight, Node)
        return len(shape_of(node)) - len(shape_of(weight)) + 1

    def check_shift(self) -> None:
        """Raises NotFoldable where the output's part that comes from a constant input is not the
        same at every position.
        """
        if self.zero_padded:
            raise NotFoldable(
                f"{self.name} pads with zeros, where a map with a shift would need the shift"
            )
        if self.form == "transposed" and not self.uniform:
            raise NotFoldable(
                f"{self.name} is a transposed convolution, where a shift reaches its output "
                "positions unevenly"
            )

    def followed_by(
        self, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """s (W x + b) + t:  W' = diag(s) W,  b' = s b + t.  Exact for any padding, stride, dilation
        and groups.
        """
        scaled = self._times_outputs(weight, scale)
        if bias is None and not shift.any():
            return scaled, None
        return scaled, scale * (bias if bias is not None else 0.0) + shift

    def preceded_by(
        self, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """W (s x + t) + b:  W' = W diag(s),  b' = b + W t, summed over input channels and kernel
        positions.
        """
        scaled = self._times_inputs(weight, scale)
        if bias is None and not shift.any():
            return scaled, None
        constant = self._summed_to_outputs(self._times_inputs(weight, shift))
        return scaled, (bias if bias is not None else 0.0) + constant

    def _times_outputs(self, weight: Tensor, values: Tensor) -> Tensor:
        """The weight times one value per output channel."""
        if self.form == "transposed":
            grouped = weight.unflatten(0, (self.groups, -1))
            return (grouped * _spaced(values.view(self.groups, 1, -1), grouped)).flatten(0, 1)
        return weight * _spaced(values, weight)

    def _times_inputs(self, weight: Tensor, values: Tensor) -> Tensor:
        """The weight times one value per input channel."""
        if self.form == "transposed":
            return weight * _spaced(values, weight)
        grouped = weight.unflatten(0, (self.groups, -1))
        return (grouped * _spaced(values.view(self.groups, 1, -1), grouped)).flatten(0, 1)

    def _summed_to_outputs(self, weight: Tensor) -> Tensor:
        """Sum over inputs and kernel positions, for each output."""
        if self.form == "transposed":
            return weight.flatten(2).sum(2).unflatten(0, (self.groups, -1)).sum(1).flatten()
        return weight.flatten(1).sum(1)


def linear_of(graph: FoldGraph, node: Node) -> LinearOp | None:
    """The linear layer that `node` is, None for another operation. Raises NotFoldable where its
    weights cannot take a map.
    """
    schema = getattr(node.target, "_schema", None)
    form = _FORMS.get(getattr(schema, "name", ""))
    if form is None or schema is None:
        return None
    arguments = _bound_arguments(node, schema)
    inputs = graph.inputs(node)
    if arguments["input"] not in inputs or arguments["weight"] in inputs:
        return None
    owner, weight, bias = _parameter_names(graph, node, arguments)
    if arguments.get("transposed"):
        form = "transposed"
    shape = shape_of(arguments["weight"])
    return LinearOp(
        node=node,
        input=arguments["input"],
        form=form,
        owner=owner,
        weight=weight,
        bias=bias,
        has_bias=arguments.get("bias") is not None,
        out_channels=shape[1] * arguments["groups"] if form == "transposed" else shape[0],
        groups=arguments.get("groups", 1),
        zero_padded=form == "conv" and _pads(arguments["padding"], shape[2:]),
        uniform=form != "transposed" or _is_pointwise(arguments, shape[2:]),
    )


def _bound_arguments(node: Node, schema: Any) -> dict[str, Any]:
    """The arguments of a node by name, defaults included."""
    names = [argument.name for argument in schema.arguments]
    defaults = {
        argument.name: argument.default_value
        for argument in schema.arguments
        if argument.has_default_value()
    }
    return {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}


def _parameter_names(
    graph: FoldGraph, node: Node, arguments: dict[str, Any]
) -> tuple[str, str, str]:
    """Path of the module that holds the parameters, name of the weight there, and the name that its
    bias has or would have. Raises NotFoldable.
    """
    operation = graph.describe(node)
    owner, _, weight = _own_parameter(graph, arguments["weight"], operation).rpartition(".")
    bias = weight.removesuffix("weight") + "bias"
    if arguments.get("bias") is not None:
        beside_the_weight = f"{owner}.{bias}".lstrip(".")
        if _own_parameter(graph, arguments["bias"], operation) != beside_the_weight:
            raise NotFoldable(f"the bias of {operation} is not that of its module")
    return owner, weight, bias


def _own_parameter(graph: FoldGraph, node: Any, operation: str) -> str:
    """Name of a parameter that this one operation alone reads. Raises NotFoldable."""
    name = graph.parameter_name(node)
    if name is None:
        raise NotFoldable(f"a weight of {operation} is computed or no parameter")
    if (uses := len(graph.users(node))) > 1:
        raise NotFoldable(f"{name} is used {uses} times in one forward pass")
    return name


def _is_pointwise(arguments: dict[str, Any], kernel: torch.Size) -> bool:
    """A transposed convolution that is a linear layer at each position."""
    is_unit = all(size == 1 for size in (*kernel, *arguments["stride"]))
    return is_unit and not _any(arguments["padding"]) and not _any(arguments["output_padding"])


def _pads(padding: Any, kernel: torch.Size) -> bool:
    if isinstance(padding, str):
        return padding == "same" and any(size > 1 for size in kernel)
    return _any(padding)


def _any(sizes: Any) -> bool:
    return any(sizes) if isinstance(sizes, list | tuple) else bool(sizes)


def _spaced(values: Tensor, weight: Tensor) -> Tensor:
    """`values` with axes of length 1 behind, until it broadcasts from the front."""
    return values.view(*values.shape, *[1] * (weight.ndim - values.ndim))


__all__ = ["LinearOp", "linear_of"]

"""torch.export's graph of a module at evaluation, and which part of it is which layer.

The graph has no in-place operations and no views
(https://docs.pytorch.org/docs/stable/export.html), so who reads a tensor is who uses its node. It
is that of one forward pass on the example, with the shapes of the example.
"""

from __future__ import annotations

import copy
import operator
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node, map_arg

from probe.errors import ProbeError, first_line

# operations that read the shape of a tensor and not its values
_SHAPE_ONLY = {
    f"aten::{name}"
    for kind in ("zeros", "ones", "full", "empty")
    for name in (f"new_{kind}", f"{kind}_like")
}


class NotFoldable(Exception):
    """Why a map cannot be folded; the text is the reason in the report."""


@dataclass(frozen=True)
class LayerCall:
    """The one call of a layer as a subgraph: its nodes, the node that it reads and the node of its
    output. `axis`: of the channels in both.
    """

    path: str
    axis: int
    nodes: frozenset[Node]
    input: Node
    output: Node


class FoldGraph:
    """The graph of `module` on an example input. Raises ProbeError where torch.export cannot make
    one.

        graph = FoldGraph(module, (images,), {})
        call = graph.layer_call("blocks.0.norm1", axis=-1)
        [graph.describe(user) for user in graph.users(call.output)]  # linear (blocks.0.attn.qkv)
    """

    def __init__(self, module: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
        self._program = _exported(module, args, kwargs)
        signature = self._program.graph_signature
        self._parameter_names = dict(signature.inputs_to_parameters)
        self._tensor_names = {
            **self._parameter_names,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.nodes: list[Node] = list(self._program.graph.nodes)
        self._order = {node: index for index, node in enumerate(self.nodes)}
        self._data_dependent: set[Node] = set()  # on the model's input; all others are constants
        self._nodes_in: dict[str, set[Node]] = defaultdict(set)  # by module path
        self._calls_of: dict[str, set[str]] = defaultdict(set)  # by module path
        self._constants: dict[Node, Any] = {}
        for node in self.nodes:
            self._register(node)

    def _register(self, node: Node) -> None:
        is_model_input = node.op == "placeholder" and node.name not in self._tensor_names
        if is_model_input or self.inputs(node):
            self._data_dependent.add(node)
        for call, (path, _) in node.meta.get("nn_module_stack", {}).items():
            self._nodes_in[path].add(node)
            self._calls_of[path].add(call)

    def layer_call(self, path: str, axis: int) -> LayerCall:
        """The call of the layer `path`. Raises NotFoldable unless it is one call that reads and
        makes one tensor.
        """
        nodes = self._nodes_in.get(path)
        if not nodes:
            raise NotFoldable("it is not called on the example, or the outputs do not depend on it")
        if len(self._calls_of[path]) > 1:
            raise NotFoldable(f"it is called {len(self._calls_of[path])} times in one forward pass")
        inputs = {source for node in nodes for source in self.inputs(node) if source not in nodes}
        outputs = {node for node in nodes for user in self.users(node) if user not in nodes}
        if len(inputs) != 1 or len(outputs) != 1:
            raise NotFoldable(f"it reads {len(inputs)} tensors and makes {len(outputs)}")
        return LayerCall(path, axis, frozenset(nodes), inputs.pop(), outputs.pop())

    def inputs(self, node: Node) -> list[Node]:
        """What a node reads whose values depend on the model's input."""
        if _is_shape_only(node):
            return []
        return [source for source in node.all_input_nodes if source in self._data_dependent]

    def users(self, node: Node) -> list[Node]:
        """The nodes that read the values of `node`: torch.fx's users without assertions, which make
        nothing, and without operations that read the shape only.
        """
        return [
            user
            for user in node.users
            if user.op == "output" or (user.users and not _is_shape_only(user))
        ]

    def nodes_after(self, node: Node) -> Iterator[Node]:
        """The nodes behind `node` in execution order."""
        yield from self.nodes[self._order[node] + 1 :]

    def parameter_name(self, node: Any) -> str | None:
        """Name of the parameter that `node` is; None for any other."""
        if isinstance(node, Node) and node.op == "placeholder":
            return self._parameter_names.get(node.name)
        return None

    def evaluate(self, node: Node, values: Mapping[Node, Any]) -> Any:
        """The operation of `node` on other tensors. Raises NotFoldable where it needs more than
        those and constants.
        """

        def value_of(source: Node) -> Any:
            return values[source] if source in values else self._constant(source)

        assert callable(node.target)
        return node.target(*map_arg(node.args, value_of), **map_arg(node.kwargs, value_of))

    def _constant(self, node: Node) -> Any:
        """The value of a node that does not depend on the model's input; floating ones as
        float64.
        """
        if node in self._data_dependent:
            raise NotFoldable(f"{self.describe(node)} is read together with it")
        if node not in self._constants:
            # a constant may be made from the shape of a tensor that is none: zeros have the shape
            zeros = {
                source: _zeros(source)
                for source in node.all_input_nodes
                if source in self._data_dependent
            }
            is_call = node.op == "call_function"
            value = self.evaluate(node, zeros) if is_call else self._stored(node)
            is_floating = isinstance(value, Tensor) and value.is_floating_point()
            self._constants[node] = value.double() if is_floating else value
        return self._constants[node]

    def _stored(self, node: Node) -> Any:
        name = self._tensor_names.get(node.name)
        if name is None:
            raise NotFoldable(f"{node.name} is read together with it")
        state = self._program.state_dict
        return state[name] if name in state else self._program.constants[name]

    def module_path(self, node: Node) -> str:
        """The innermost module that `node` runs in."""
        stack = list(node.meta.get("nn_module_stack", {}).values())
        return stack[-1][0] if stack else ""

    def describe(self, node: Node) -> str:
        """`relu (layer1.0.act1)`: the operation and the module it runs in."""
        if node.op == "placeholder":
            return "the model's input"
        while node.target is operator.getitem:  # an output of an operation with several
            node = node.all_input_nodes[0]
        name = _schema_name(node).split("::")[-1]
        name = name or str(getattr(node.target, "__name__", node.name))
        name = re.sub(r"^_*(native_)?|_legit.*", "", name)  # _native_batch_norm_legit_no_training
        return f"{name} ({self.module_path(node) or 'the model itself'})"


def _schema_name(node: Node) -> str:
    """`aten::relu`; empty for what is no operator of torch."""
    return getattr(getattr(node.target, "_schema", None), "name", "")


def _is_shape_only(node: Node) -> bool:
    return _schema_name(node) in _SHAPE_ONLY


def _zeros(node: Node) -> Tensor:
    shape, meta = shape_of(node), node.meta["val"]
    return torch.zeros(shape, dtype=meta.dtype, device=meta.device)


def shape_of(node: Node) -> torch.Size:
    """Shape of the tensor that a node makes."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        raise NotFoldable(f"{node.name} is no tensor")
    return value.shape


def _exported(
    module: nn.Module, args: tuple, kwargs: Mapping[str, Any]
) -> torch.export.ExportedProgram:
    """Of a copy that shares its tensors: what a traced forward pass leaves in attributes must not
    stay in the module.
    """
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            traced = copy.deepcopy(module, dict(shared))
            program = torch.export.export(traced, args, dict(kwargs), strict=False)
            return program.run_decompositions({})
    except Exception as error:  # whatever the module's own code raises on traced tensors
        raise ProbeError(
            f"{type(module).__name__} cannot be folded: torch.export does not see through its "
            f"forward pass ({first_line(error)[:200]})"
        ) from error


__all__ = ["FoldGraph", "LayerCall", "NotFoldable", "shape_of"]

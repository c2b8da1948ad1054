"""The flow of tensors through a module at evaluation: torch.export's graph, and which part of it is
which layer.

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


class Blocked(Exception):
    """Why a map cannot move; the text is the reason in the report."""


@dataclass(frozen=True)
class Region:
    """The nodes of the one call of a layer, the node that it reads and the one of its output.
    `axis`: of the channels in both.
    """

    path: str
    axis: int
    nodes: frozenset[Node]
    input: Node
    output: Node


class Flow:
    """The graph of `module` on an example input. Raises ProbeError where torch.export cannot make
    one.
    """

    def __init__(self, module: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
        self._program = _exported(module, args, kwargs)
        signature = self._program.graph_signature
        self._parameters = dict(signature.inputs_to_parameters)
        self._tensors = {
            **self._parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.nodes: list[Node] = list(self._program.graph.nodes)
        self._order = {node: place for place, node in enumerate(self.nodes)}
        self._varying: set[Node] = set()
        self._of: dict[str, set[Node]] = defaultdict(set)
        self._calls: dict[str, set[str]] = defaultdict(set)
        self._values: dict[Node, Any] = {}
        for node in self.nodes:
            self._note(node)

    def _note(self, node: Node) -> None:
        given = node.op == "placeholder" and node.name not in self._tensors
        if given or self.sources(node):
            self._varying.add(node)
        for call, (path, _) in node.meta.get("nn_module_stack", {}).items():
            self._of[path].add(node)
            self._calls[path].add(call)

    def region(self, path: str, axis: int) -> Region:
        """The call of the layer `path`. Raises Blocked unless it is one call that reads and makes
        one tensor.
        """
        nodes = self._of.get(path)
        if not nodes:
            raise Blocked("it is not called on the example, or the outputs do not depend on it")
        if len(self._calls[path]) > 1:
            raise Blocked(f"it is called {len(self._calls[path])} times in one forward pass")
        read = {source for node in nodes for source in self.sources(node) if source not in nodes}
        made = {node for node in nodes for reader in self.readers(node) if reader not in nodes}
        if len(read) != 1 or len(made) != 1:
            raise Blocked(f"it reads {len(read)} tensors and makes {len(made)}")
        return Region(path, axis, frozenset(nodes), read.pop(), made.pop())

    def sources(self, node: Node) -> list[Node]:
        """What a node reads whose values depend on the model's input."""
        if _is_shape_only(node):
            return []
        return [source for source in node.all_input_nodes if source in self._varying]

    def readers(self, node: Node) -> list[Node]:
        """The nodes that read `node` and matter: assertions make nothing."""
        return [
            reader
            for reader in node.users
            if reader.op == "output" or (reader.users and not _is_shape_only(reader))
        ]

    def after(self, node: Node) -> Iterator[Node]:
        """The nodes behind `node` in execution order."""
        yield from self.nodes[self._order[node] + 1 :]

    def parameter(self, node: Any) -> str | None:
        """Name of the parameter that `node` is; None for any other."""
        return (
            self._parameters.get(node.name)
            if isinstance(node, Node) and node.op == "placeholder"
            else None
        )

    def run(self, node: Node, given: Mapping[Node, Any]) -> Any:
        """The operation of `node` on other tensors. Raises Blocked where it needs more than those
        and constants.
        """

        def value(source: Node) -> Any:
            return given[source] if source in given else self._constant(source)

        assert callable(node.target)
        return node.target(*map_arg(node.args, value), **map_arg(node.kwargs, value))

    def _constant(self, node: Node) -> Any:
        """The value of a node that does not depend on the model's input; floating ones as
        float64.
        """
        if node in self._varying:
            raise Blocked(f"{self.describe(node)} is read together with it")
        if node not in self._values:
            shapes = {
                source: _zeros(source) for source in node.all_input_nodes if source in self._varying
            }
            value = self._stored(node) if node.op != "call_function" else self.run(node, shapes)
            wide = isinstance(value, Tensor) and value.is_floating_point()
            self._values[node] = value.double() if wide else value
        return self._values[node]

    def _stored(self, node: Node) -> Any:
        name = self._tensors.get(node.name)
        if name is None:
            raise Blocked(f"{node.name} is read together with it")
        state = self._program.state_dict
        return state[name] if name in state else self._program.constants[name]

    def path(self, node: Node) -> str:
        """The innermost module that `node` runs in."""
        stack = list(node.meta.get("nn_module_stack", {}).values())
        return stack[-1][0] if stack else ""

    def describe(self, node: Node) -> str:
        """`relu (layer1.0.act1)`: the operation and the module it runs in."""
        if node.op == "placeholder":
            return "the model's input"
        while node.target is operator.getitem:  # an output of an operation with several
            node = node.all_input_nodes[0]
        schema = getattr(node.target, "_schema", None)
        name = (
            schema.name.split("::")[-1]
            if schema is not None
            else str(getattr(node.target, "__name__", node.name))
        )
        name = re.sub(r"^_*(native_)?|_legit.*", "", name)  # _native_batch_norm_legit_no_training
        return f"{name} ({self.path(node) or 'the model itself'})"


def _is_shape_only(node: Node) -> bool:
    return getattr(getattr(node.target, "_schema", None), "name", None) in _SHAPE_ONLY


def _zeros(node: Node) -> Tensor:
    shape, meta = shape_of(node), node.meta["val"]
    return torch.zeros(shape, dtype=meta.dtype, device=meta.device)


def shape_of(node: Node) -> torch.Size:
    """Shape of the tensor that a node makes."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        raise Blocked(f"{node.name} is no tensor")
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
            return torch.export.export(traced, args, dict(kwargs), strict=False).run_decompositions(
                {}
            )
    except Exception as error:  # whatever the module's own code raises on traced tensors
        raise ProbeError(
            f"{type(module).__name__} cannot be folded: torch.export does not see through its "
            f"forward pass ({first_line(error)[:200]})"
        ) from error


__all__ = ["Blocked", "Flow", "Region", "shape_of"]

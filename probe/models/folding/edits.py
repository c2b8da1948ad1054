"""Changes of a module that can be taken back: new parameters, new biases, removed layers."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

_MISSING = object()


class Edits:
    """Entries of dictionaries that were replaced; `undo` puts the same objects back.

    edits = Edits()
    edits.remove_norm(module, "layer1.0.bn1")
    edits.undo()
    """

    def __init__(self) -> None:
        self._replaced: list[tuple[dict, Any, Any]] = []

    def set_entry(self, entries: dict, key: Any, new: Any) -> None:
        self._replaced.append((entries, key, entries.get(key, _MISSING)))
        entries[key] = new

    def undo(self) -> list[Any]:
        """Everything as it was; returns the objects that were put back."""
        restored = []
        while self._replaced:
            entries, key, old = self._replaced.pop()
            if old is _MISSING:
                del entries[key]
            else:
                entries[key] = old
                restored.append(old)
        return restored

    def remove_norm(self, root: nn.Module, path: str) -> None:
        """Put the identity in the place of a layer, or its own drop and activation, wherever `root`
        refers to it.
        """
        layer = root.get_submodule(path)
        rest = without_norm(layer)
        for parent in list(root.modules()):
            for name, child in parent._modules.items():
                if child is layer:
                    self.set_entry(parent._modules, name, rest)

    def set_parameter(
        self, root: nn.Module, path: str, name: str, value: Tensor, like: Tensor
    ) -> None:
        """A new parameter in the device, dtype and requires_grad of `like`."""
        moved = value.to(like.device, like.dtype, copy=True)
        parameter = nn.Parameter(moved, requires_grad=like.requires_grad)
        self.set_entry(root.get_submodule(path)._parameters, name, parameter)


def without_norm(layer: nn.Module) -> nn.Module:
    """What is left of a layer without its affine map: its drop and activation, else the
    identity.
    """
    parts = [(name, getattr(layer, name, None)) for name in ("drop", "act")]
    kept = OrderedDict((name, part) for name, part in parts if isinstance(part, nn.Module))
    if len(kept) < len(parts) or all(isinstance(part, nn.Identity) for part in kept.values()):
        return nn.Identity().train(layer.training)
    return nn.Sequential(kept).train(layer.training)


__all__ = ["Edits", "without_norm"]

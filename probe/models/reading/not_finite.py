"""Which layer of a network made the first number that is not finite, in a forward and a backward
pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from probe.models.reading.layers import unwrapped


class Suspects:
    """What went wrong first; each a path, None where all was well.

    forward: the first module to give a number that is not finite (the innermost one), and whether
    its own weights already hold one. backward: the first module, counted from the loss, at whose
    output the gradient is not finite; `parameter`: the first whose gradient is not.
    """

    def __init__(self) -> None:
        self.forward: str | None = None
        self.weights: str | None = None  # a parameter or buffer that is not finite itself
        self.backward: str | None = None
        self.parameter: str | None = None

    def words(self) -> str:
        """For people."""
        if self.weights is not None:
            return f"its own weights are not: {self.weights}"
        if self.forward is not None:
            return f"first at the output of {self.forward}"
        if self.parameter is not None and self.backward is None:
            return f"first in the gradient of {self.parameter} (backward pass)"
        if self.backward is not None:
            return f"first in the gradient at the output of {self.backward} (backward pass)"
        return "the loss itself makes it, of finite logits"


@contextmanager
def watching(module: nn.Module) -> Iterator[Suspects]:
    """Suspects of the passes in the block."""
    module = unwrapped(module)
    suspects = Suspects()
    tensors = (*module.named_parameters(), *module.named_buffers())
    suspects.weights = next((name for name, value in tensors if not _finite(value)), None)
    with ExitStack() as stack:
        for name, child in module.named_modules():
            handle = child.register_forward_hook(_after(name or "the network", suspects))
            stack.callback(handle.remove)
        for name, value in module.named_parameters():
            if value.requires_grad:
                stack.callback(value.register_hook(_of_parameter(name, suspects)).remove)
        yield suspects


def _after(name: str, suspects: Suspects) -> Callable[..., None]:
    def hook(_: nn.Module, args: Any, output: Any) -> None:
        value = output[0] if isinstance(output, tuple | list) and output else output
        if not isinstance(value, Tensor):
            return
        if suspects.forward is None and not _finite(value):
            suspects.forward = name
        if value.requires_grad and torch.is_grad_enabled():
            value.register_hook(_of_output(name, suspects))

    return hook


def _of_output(name: str, suspects: Suspects) -> Callable[[Tensor], None]:
    def hook(gradient: Tensor) -> None:
        if suspects.backward is None and suspects.parameter is None and not _finite(gradient):
            suspects.backward = name

    return hook


def _of_parameter(name: str, suspects: Suspects) -> Callable[[Tensor], None]:
    def hook(gradient: Tensor) -> None:
        if suspects.parameter is None and not _finite(gradient):
            suspects.parameter = name

    return hook


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())

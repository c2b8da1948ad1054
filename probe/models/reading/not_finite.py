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
from probe.models.reading.observe import first_tensor

Hook = Callable[..., None]


class Suspects:
    """What went wrong first; each a path, None where all was well.

    weights: a parameter or buffer that is not finite itself. forward: the innermost module that
    gave the first number that is not finite. backward: the innermost one that got a finite gradient
    at its output and made another of it. parameter: the first one whose gradient is not finite.
    """

    def __init__(self) -> None:
        self.weights: str | None = None
        self.forward: str | None = None
        self.backward: str | None = None
        self.parameter: str | None = None
        self._sound: set[str] = set()  # modules with a finite gradient at their output

    @property
    def any(self) -> bool:
        return any((self.weights, self.forward, self.backward, self.parameter))

    def words(self) -> str:
        """For people."""
        if self.weights is not None:
            return f"for {self.weights} is not"
        if self.forward is not None:
            return f"first at the output of {self.forward}"
        if self.backward is not None:
            return f"first in the backward pass of {self.backward}"
        if self.parameter is not None:
            return f"first in the gradient of {self.parameter}"
        return "though every layer's output is: the loss itself makes it"

    def before(self, name: str) -> Hook:
        """The hook before module `name` runs: watches the gradient of its input."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = first_tensor(args, kwargs)
            if x is not None and x.requires_grad and torch.is_grad_enabled():
                x.register_hook(lambda gradient: self._into(name, gradient))

        return hook

    def after(self, name: str) -> Hook:
        """The hook after it: looks at its output, and watches the gradient there."""

        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            value = output[0] if isinstance(output, tuple | list) and output else output
            if not isinstance(value, Tensor):
                return
            if self.forward is None and not _finite(value):
                self.forward = name
            if value.requires_grad and torch.is_grad_enabled():
                value.register_hook(lambda gradient: self._from(name, gradient))

        return hook

    def of_parameter(self, name: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            if self.parameter is None and not _finite(gradient):
                self.parameter = name

        return hook

    def _from(self, name: str, gradient: Tensor) -> None:
        if _finite(gradient):
            self._sound.add(name)

    def _into(self, name: str, gradient: Tensor) -> None:
        if name not in self._sound or _finite(gradient):
            return
        if self.backward is None or name.startswith(f"{self.backward}."):
            self.backward = name


@contextmanager
def watching(module: nn.Module) -> Iterator[Suspects]:
    """Suspects of the passes in the block."""
    module = unwrapped(module)
    suspects = Suspects()
    tensors = (*module.named_parameters(), *module.named_buffers())
    suspects.weights = next((name for name, value in tensors if not _finite(value)), None)
    with ExitStack() as stack:
        for path, child in module.named_modules():
            name = path or type(child).__name__
            before = child.register_forward_pre_hook(suspects.before(name), with_kwargs=True)
            stack.callback(before.remove)
            stack.callback(child.register_forward_hook(suspects.after(name)).remove)
        for name, value in module.named_parameters():
            if value.requires_grad:
                stack.callback(value.register_hook(suspects.of_parameter(name)).remove)
        yield suspects


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())

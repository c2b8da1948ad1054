"""A dispatch mode that sees every operation, without torch's compiler.

class Names(Operations):
    def operation(self, func, args, kwargs):
        print(func)
        return func(*args, **kwargs)

with Names():
    module(images)
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class _Handler:
    """Apart from the mode: a handler that is defined in the class of a mode itself torch keeps from
    being compiled, and for that it imports its compiler at the first operation (1.4 s).
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.operation(func, args, kwargs or {})

    @abstractmethod
    def operation(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """The result of `func(*args, **kwargs)`, an operator of torch."""


class Operations(_Handler, TorchDispatchMode):
    """A mode whose subclasses handle each `operation`."""

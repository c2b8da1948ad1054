"""A dispatch mode that sees every operation, without torch's compiler.

class Names(Operations):
    def operation(self, func, args, kwargs):
        print(func)
        return func(*args, **kwargs)

with Names():
    module(images)
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
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

    def __enter__(self) -> Any:
        # once something is compiled, and be it a part of the model, the handler must not be
        if "torch._dynamo" in sys.modules:
            _Handler.__torch_dispatch__ = _uncompiled()  # type: ignore[method-assign]
        return super().__enter__()


@cache
def _uncompiled() -> Callable[..., Any]:
    return torch.compiler.disable(_Handler.__torch_dispatch__)  # type: ignore[no-any-return]

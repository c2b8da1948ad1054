"""Read every normalization layer while a model runs. The only place that registers hooks for
capture.

1. Names are resolved first, hooks are registered under try/finally, and none is left afterwards,
also after an exception.
2. A forward hook sees input and output before a later in-place ReLU or residual add can overwrite
   them, and hands them on at once; no reference is kept.
3. A norm+activation module of timm applies its activation inside: there the output is read where it
enters the module's `drop`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from probe.layer_names import matches
from probe.models.reading.layers import NormType, norm_modules, unwrapped
from probe.models.reading.observe import BatchContext, first_tensor, observe
from probe.stats.observed import Observed

Receive = Callable[
    [str, int, Observed], None
]  # module path, call in this forward pass (from 1), what it saw


class Tap:
    """Hooks of one `tap`; `begin` is called before each forward pass."""

    def __init__(self, modules: dict[str, tuple[nn.Module, NormType]], receive: Receive) -> None:
        self.modules = modules
        self.calls: Counter[str] = Counter()
        self.functional: Counter[str] = Counter()
        self._receive = receive
        self._context: BatchContext | None = None
        self._inputs: dict[str, Tensor] = {}
        self._inside: list[str] = []
        self._reading = False  # a function that a user registered may call its module

    def begin(self, context: BatchContext) -> None:
        """Say which images the next forward pass runs."""
        self._context = context
        self.calls.clear()
        self._inputs.clear()

    def attach(self, stack: ExitStack) -> None:
        for name, (module, kind) in self.modules.items():
            drop = getattr(module, "drop", None)
            if isinstance(drop, nn.Module) and hasattr(module, "act"):
                stack.callback(
                    module.register_forward_pre_hook(
                        self._keep_input(name), with_kwargs=True
                    ).remove
                )
                stack.callback(
                    drop.register_forward_pre_hook(
                        self._read_before_activation(name, module, kind)
                    ).remove
                )
            else:
                stack.callback(
                    module.register_forward_hook(
                        self._read(name, module, kind), with_kwargs=True
                    ).remove
                )

    def _emit(self, name: str, module: nn.Module, kind: NormType, x: Tensor | None, y: Any) -> None:
        if self._context is None or x is None or not isinstance(y, Tensor) or self._reading:
            return
        self.calls[name] += 1
        self._reading = True
        try:
            with torch.no_grad():
                observed = observe(name, module, kind, x.detach(), y.detach(), self._context)
        finally:
            self._reading = False
        self._receive(name, self.calls[name], observed)

    def _read(self, name: str, module: nn.Module, kind: NormType) -> Callable:
        def hook(_: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            self._emit(name, module, kind, first_tensor(args, kwargs), output)

        return hook

    def _keep_input(self, name: str) -> Callable:
        def hook(_: nn.Module, args: tuple, kwargs: dict) -> None:
            x = first_tensor(args, kwargs)
            if x is not None:
                self._inputs[name] = x

        return hook

    def _read_before_activation(self, name: str, module: nn.Module, kind: NormType) -> Callable:
        def hook(_: nn.Module, args: tuple) -> None:
            self._emit(name, module, kind, self._inputs.pop(name, None), args[0])

        return hook

    def _leave(self, *_: Any) -> None:
        if self._inside:  # an exception may call this twice for one module
            self._inside.pop()

    @contextmanager
    def counting_functional(self, root: nn.Module) -> Iterator[None]:
        """Count functional norm calls (`F.layer_norm` outside any norm module), by the module they
        are made in.
        """
        norms = {name for name, _, _ in norm_modules(root)}
        with ExitStack() as stack:
            for name, module in root.named_modules():
                stack.callback(
                    module.register_forward_pre_hook(
                        lambda *_, name=name: self._inside.append(name)
                    ).remove
                )
                stack.callback(module.register_forward_hook(self._leave, always_call=True).remove)
            stack.enter_context(_FunctionalNorms(self._inside, norms, self.functional))
            yield
        self._inside.clear()


_FUNCTIONAL = {F.layer_norm, F.batch_norm, F.group_norm, F.instance_norm, F.rms_norm}


class _FunctionalNorms(TorchFunctionMode):
    def __init__(self, inside: list[str], norms: set[str], counts: Counter[str]) -> None:
        super().__init__()
        self._inside, self._norms, self._counts = inside, norms, counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FUNCTIONAL and not any(name in self._norms for name in self._inside):
            self._counts[f"{self._inside[-1] if self._inside else ''}: {func.__name__}"] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def tap(module: nn.Module, layers: str, receive: Receive) -> Iterator[Tap]:
    """Hand every call of the norm layers of `module` that match the glob `layers` to `receive`,
    until the block ends.
    """
    module = unwrapped(module)
    chosen = {
        name: (child, kind) for name, child, kind in norm_modules(module) if matches(name, layers)
    }
    with ExitStack() as stack:
        current = Tap(chosen, receive)
        current.attach(stack)
        yield current

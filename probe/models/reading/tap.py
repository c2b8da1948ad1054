"""Read every normalization layer while a model runs. The only place that registers hooks for
capture.

1. Names are resolved first, hooks are registered under try/finally, and none is left afterwards,
   also after an exception.
2. A forward hook sees input and output before a later in-place ReLU or residual add can overwrite
   them, and hands them on at once; no reference is kept. A deep copy of the model has the hooks
   too: there they do nothing.
3. A norm+activation module of timm applies its activation inside: there the output is read where it
   enters the module's `drop`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from probe.layer_names import Patterns, matches
from probe.models.reading.layers import NormType, norm_modules, unwrapped
from probe.models.reading.observe import BatchContext, Observer, first_tensor
from probe.stats.observed import Observed

# module path, call in this forward pass (from 1), what it saw
Receive = Callable[[str, int, Observed], None]


class Tap:
    """Hooks of one `tap`; `begin` is called before each forward pass.

    def receive(name: str, call: int, observed: Observed) -> None: ...

    with tap(module, "blocks.*", receive) as hooks, torch.no_grad():
        hooks.begin(BatchContext(images=np.arange(8), groups=np.arange(8) % 16))
        module(batch)
    """

    def __init__(self, modules: dict[str, tuple[nn.Module, NormType]], receive: Receive) -> None:
        self.modules = modules
        self.calls: Counter[str] = Counter()
        self._receive = receive
        self._context: BatchContext | None = None
        self._inputs: dict[str, Tensor] = {}
        self._running: list[str] = []  # paths of the modules that are running, outermost first
        self._reading = False  # a function that a user registered may call its module

    def begin(self, context: BatchContext) -> None:
        """Say which images the next forward pass runs."""
        self._context = context
        self.calls.clear()
        self._inputs.clear()

    def attach(self, stack: ExitStack) -> None:
        for name, (module, kind) in self.modules.items():
            for handle in self._hooks(name, module, kind):
                stack.callback(handle.remove)

    def _hooks(self, name: str, module: nn.Module, kind: NormType) -> Iterator[RemovableHandle]:
        observer, drop = Observer(name, module, kind), getattr(module, "drop", None)
        if isinstance(drop, nn.Module) and hasattr(module, "act"):
            yield module.register_forward_pre_hook(self._keep_input(name, module), with_kwargs=True)
            yield drop.register_forward_pre_hook(self._read_before_activation(name, observer, drop))
        else:
            yield module.register_forward_hook(self._read(name, module, observer), with_kwargs=True)

    def _emit(self, name: str, observer: Observer, x: Tensor | None, y: Any) -> None:
        if self._context is None or x is None or not isinstance(y, Tensor) or self._reading:
            return
        self.calls[name] += 1
        self._reading = True
        try:
            with torch.no_grad() if torch.is_grad_enabled() else nullcontext():
                observed = observer(_detached(x), _detached(y), self._context)
        finally:
            self._reading = False
        self._receive(name, self.calls[name], observed)

    def _read(self, name: str, module: nn.Module, observer: Observer) -> Callable:
        def hook(called: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            if called is module:
                self._emit(name, observer, first_tensor(args, kwargs), output)

        return hook

    def _keep_input(self, name: str, module: nn.Module) -> Callable:
        def hook(called: nn.Module, args: tuple, kwargs: dict) -> None:
            x = first_tensor(args, kwargs)
            if x is not None and called is module:
                self._inputs[name] = x

        return hook

    def _read_before_activation(self, name: str, observer: Observer, drop: nn.Module) -> Callable:
        def hook(called: nn.Module, args: tuple) -> None:
            if called is drop:
                self._emit(name, observer, self._inputs.pop(name, None), args[0])

        return hook

    def _enter(self, name: str, module: nn.Module) -> Callable:
        def hook(called: nn.Module, *_: Any) -> None:
            if called is module:
                self._running.append(name)

        return hook

    def _leave(self, module: nn.Module) -> Callable:
        def hook(called: nn.Module, *_: Any) -> None:
            if called is module and self._running:  # an exception may call this twice
                self._running.pop()

        return hook

    @contextmanager
    def counting_functional(self, root: nn.Module) -> Iterator[Counter[str]]:
        """Count functional norm calls (`F.layer_norm` outside any norm module) inside of the block,
        by the module they are made in: {"blocks.0: layer_norm": 1}.
        """
        norms = {name for name, _, _ in norm_modules(root)}
        counts: Counter[str] = Counter()
        with ExitStack() as stack:
            stack.callback(self._running.clear)
            for name, module in root.named_modules():
                enter = module.register_forward_pre_hook(self._enter(name, module))
                leave = module.register_forward_hook(self._leave(module), always_call=True)
                stack.callback(enter.remove)
                stack.callback(leave.remove)
            stack.enter_context(_FunctionalNorms(self._running, norms, counts))
            yield counts


def _detached(tensor: Tensor) -> Tensor:
    return tensor.detach() if tensor.requires_grad else tensor


_FUNCTIONAL = {F.layer_norm, F.batch_norm, F.group_norm, F.instance_norm, F.rms_norm}


class _FunctionalNorms(TorchFunctionMode):
    def __init__(self, running: list[str], norms: set[str], counts: Counter[str]) -> None:
        super().__init__()
        self._running, self._norms, self._counts = running, norms, counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FUNCTIONAL and self._norms.isdisjoint(self._running):
            self._counts[f"{self._running[-1] if self._running else ''}: {func.__name__}"] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def tap(module: nn.Module, layers: Patterns, receive: Receive) -> Iterator[Tap]:
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

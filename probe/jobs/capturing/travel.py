"""Makes workers in other processes: the model travels from the memory of this machine, and moves to
the device of the process where it arrives.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from torch import nn

from probe.engines import Elsewhere
from probe.errors import UsageError
from probe.models.loading.load import Model, resolve_device
from probe.models.loading.origins.python_file import CodeFile, code_of
from probe.models.reading.registration import Registered

W = TypeVar("W")
DEVICES = (None, "cpu", "cuda")


class Travelling(Generic[W]):
    """make_worker(model), with what the process needs before it can unpickle the model: the user's
    own file of code and registered norms.
    """

    def __init__(self, make_worker: Callable[[Model], W], model: Model, device: str | None) -> None:
        # in the order in which they are unpickled
        self._code: CodeFile | None = code_of(model.origin, model.name)
        self._registered = Registered()
        self._model, self._device, self._make_worker = model, device, make_worker

    def __call__(self) -> W:
        return self._make_worker(self._model)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._model.module.to(resolve_device(self._device))


def travelling(
    engine: Any, make_worker: Callable[[Model], W], model: Model, device: str | None
) -> Callable[[], W]:
    """A factory of workers for the engine. device: where the user wants the model.

    Raises UsageError for a model that depends on the order of its batches.
    """
    if not isinstance(engine, Elsewhere):
        return partial(make_worker, model)
    if any(child.training for child in model.module.modules()):
        raise UsageError(
            "a part of the model is in train mode, so that a batch depends on those before it, and "
            "workers see some of them only: call model.eval(), or use the engine local"
        )
    return Travelling(make_worker, model, device)


def loading_device(engine: Any, device: str | None) -> str | None:
    """Where a model is loaded: one that travels in memory, for the device of each worker."""
    if not isinstance(engine, Elsewhere):
        return device
    if device not in DEVICES:
        raise UsageError(
            f"--device {device}: workers have a GPU each, which is called cuda; accepted: cpu, cuda"
        )
    return "cpu"


def in_memory(engine: Any, module: nn.Module) -> nn.Module:
    """A module that a user made, or a copy of it in memory where it is to travel from a GPU."""
    on_gpu = any(tensor.device.type != "cpu" for tensor in module.parameters())
    if not on_gpu or not isinstance(engine, Elsewhere):
        return module
    return copy.deepcopy(module).to("cpu")


__all__ = ["in_memory", "loading_device", "travelling"]

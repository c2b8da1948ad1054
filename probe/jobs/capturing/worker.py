"""What a capture does with each batch: one forward pass under the hooks, one accumulator per layer
call.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from probe.errors import unknown
from probe.jobs.inputs import Inputs
from probe.models.attention import AttentionProbe
from probe.models.loading.load import Model
from probe.models.reading.observe import BatchContext
from probe.models.reading.tap import Tap, tap
from probe.records import Layer, Plan
from probe.stats.layer import LayerStatistics
from probe.stats.observed import Observed
from probe.stats.samples import RowChoice

Found = list[tuple[Layer, LayerStatistics | None]]

_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast_dtype(name: str | None) -> torch.dtype | None:
    """The dtype of torch.autocast by its name; None: no autocast. Raises UsageError for any other
    name.
    """
    if name is not None and name not in _AUTOCAST:
        raise unknown("--autocast", name, _AUTOCAST)
    return _AUTOCAST[name] if name is not None else None


class Worker:
    """Runs batches and keeps one accumulator per layer call. Memory does not grow with the number
    of images.

    A context manager: the hooks on the layers that match the glob `layers` are there inside of the
    block only, and so are those of `attention`, which reads the same forward pass.
    """

    def __init__(
        self,
        model: Model,
        plan: Plan,
        layers: str = "*",
        autocast: torch.dtype | None = None,
        attention: AttentionProbe | None = None,
    ) -> None:
        self.images = 0
        self.attention = attention
        self.statistics: dict[
            tuple[str, int], LayerStatistics
        ] = {}  # (module path, call): in execution order
        self.functional: dict[
            str, int
        ] = {}  # functional norms of a forward pass, which no hook sees: calls by module
        self._model, self._plan, self._autocast = model, plan, autocast
        self._tap = tap(model.module, layers, self._receive)
        self._hooks: Tap | None = None
        self._block = ExitStack()
        self._choices: dict[bytes, RowChoice] = {}  # layers of equal grid share theirs

    def __enter__(self) -> Worker:
        with ExitStack() as block:
            if self.attention is not None:
                block.enter_context(self.attention)
            self._hooks = block.enter_context(self._tap)
            self._block = block.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._block.__exit__(*error)

    def update(self, batch: Inputs) -> None:
        """One forward pass without gradients; the hooks do the rest."""
        assert self._hooks is not None, "update works inside of the with block only"
        self._hooks.begin(
            BatchContext(batch.images, batch.groups, self._model.prefix_tokens, batch.valid)
        )
        if self.attention is not None:
            self.attention.begin(len(batch), input_size(batch), batch.valid)
        # counting functional norms costs time, so only the first forward pass is looked at
        counting = (
            nullcontext() if self.images else self._hooks.counting_functional(self._model.module)
        )
        with counting:
            forward(self._model, batch, self._autocast)
        self.functional = dict(sorted(self._hooks.functional.items()))
        self.images += len(batch)

    def _receive(self, name: str, call: int, observed: Observed) -> None:
        """What a hook saw: the `call`-th call of the layer `name` in the running pass."""
        key = (name, call)
        if key not in self.statistics:
            self.statistics[key] = LayerStatistics(self._plan, observed.channels)
        grid = observed.kinds.tobytes()
        if grid not in self._choices:
            self._choices[grid] = RowChoice(self._plan, observed.kinds)
        self.statistics[key].update(observed, self._choices[grid])

    def merge(self, other: Worker) -> None:
        """Take over what another worker saw of other batches."""
        for key, statistics in other.statistics.items():
            if key in self.statistics:
                self.statistics[key].merge(statistics)
            else:
                self.statistics[key] = statistics
        if self.attention is not None and other.attention is not None:
            self.attention.merge(other.attention)
        self.images += other.images

    def layers(self, chosen: list[Layer]) -> Found:
        """Layers in execution order, then those never called. A module called k times is k layers
        `name#1` .. `name#k`.
        """
        known = {layer.module: layer for layer in chosen}
        several = {name for name, call in self.statistics if call > 1}
        found: Found = []
        for (name, call), statistics in self.statistics.items():
            full = f"{name}#{call}" if name in several else name
            channels = len(statistics.moments.count)
            found.append(
                (replace(known[name], name=full, depth=len(found), channels=channels), statistics)
            )
        called = {name for name, _ in self.statistics}
        for layer in chosen:
            if layer.module not in called:
                found.append((replace(layer, depth=len(found)), None))
        return found


def forward(model: Model, batch: Inputs, autocast: torch.dtype | None = None) -> Any:
    """One forward pass without gradients, on the device of the parameters. A capture leaves its
    output to the hooks.
    """
    device = next((p.device for p in model.module.parameters()), torch.device("cpu"))
    args, kwargs = _to(batch.args, device), _to(batch.kwargs, device)
    cast = torch.autocast(device.type, autocast) if autocast else nullcontext()
    with torch.no_grad(), cast:
        return model.module(*args, **kwargs)


def input_size(batch: Inputs) -> tuple[int, int] | None:
    """(height, width) of the images (B, C, H, W) in the batch; None where the module takes
    something else.
    """
    images = (
        value
        for value in (*batch.args, *batch.kwargs.values())
        if isinstance(value, Tensor) and value.ndim == 4
    )
    shape = next((value.shape for value in images if value.is_floating_point()), None)
    return (int(shape[-2]), int(shape[-1])) if shape is not None else None


def _to(value: Any, device: torch.device) -> Any:
    """Tensors on the device, in whatever they are packed."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_to(item, device) for item in value)
    return value

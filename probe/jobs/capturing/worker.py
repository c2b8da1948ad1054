"""What a capture does with each batch: one forward pass under the hooks, one accumulator per layer
call.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import Any

import torch

from probe import heap
from probe.jobs.capturing.forward import forward, input_size
from probe.jobs.capturing.halving import Halving, Key
from probe.jobs.inputs import Inputs
from probe.models.attention import AttentionProbe
from probe.models.loading.load import Model
from probe.models.reading.exclusive import alone
from probe.models.reading.observe import BatchContext
from probe.models.reading.tap import Tap, tap
from probe.records import Layer, Plan
from probe.stats.execution_order import ExecutionOrder
from probe.stats.layer import LayerStatistics
from probe.stats.observed import Observed
from probe.stats.results import Results
from probe.stats.samples import RowChoice
from probe.stats.state import State, put_under, taken_from

CapturedLayers = list[tuple[Layer, LayerStatistics | None]]  # None: never called


class Worker:
    """Runs batches and keeps one accumulator per layer call. Memory does not grow with the number
    of images.

        with Worker(model, plan, layers="blocks.*") as worker:
            for batch in stream.batches:
                worker.update(batch)
        worker.merge(another)  # that ran other batches
        for layer, statistics in worker.layers(list_norm_layers(model.module)): ...

    A context manager: the hooks on the layers that match the glob `layers` are there inside of the
    block only, and so are those of the attention probe that reads the same forward passes where
    `attention`, its options, is given. `partial(Worker, model, plan, ...)` makes workers in other
    processes; a worker that was pickled keeps what it saw and can be merged, but has no model and
    runs nothing.
    """

    def __init__(
        self,
        model: Model,
        plan: Plan,
        layers: str = "*",
        autocast: torch.dtype | None = None,
        attention: dict[str, Any] | None = None,
    ) -> None:
        self.images = 0
        self.device = next((str(p.device) for p in model.module.parameters()), None)
        self.attention = (
            AttentionProbe(model.module, **attention) if attention is not None else None
        )
        # functional norms of the first forward pass, which no hook sees: calls by module
        self.functional: dict[str, int] = {}
        self._counted: int | None = None  # the place of that batch
        self._statistics: dict[tuple[str, int], LayerStatistics] = {}  # by (module path, call)
        self._order = ExecutionOrder()
        self._model, self._plan, self._layers, self._autocast = model, plan, layers, autocast
        self._hooks: Tap | None = None
        self._block = ExitStack()
        self._choices: dict[bytes, RowChoice] = {}  # layers of equal grid share theirs
        self.halving = Halving(model.module)
        self._results = Results()  # those on their way from a device
        # of the running pass: layer calls that need not be shown to it, and those dealt with
        self._left_out: frozenset[Key] = frozenset()
        self._seen: set[Key] = set()

    def __enter__(self) -> Worker:
        with ExitStack() as block:
            block.enter_context(alone(self._model.module))
            block.enter_context(heap.kept())
            if self.attention is not None:
                block.enter_context(self.attention)
            self._hooks = block.enter_context(tap(self._model.module, self._layers, self._receive))
            self._block = block.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks = None
        self._block.__exit__(*error)

    def settle(self) -> None:
        """Wait for what is still on its way from a device, and count it. Whoever reads does so
        first.
        """
        self._results.settle()

    def __getstate__(self) -> dict[str, Any]:
        """What was seen; model and hooks stay behind."""
        self.settle()
        kept = (
            "images",
            "device",
            "attention",
            "functional",
            "_counted",
            "_statistics",
            "_order",
            "halving",
        )
        seen = {name: getattr(self, name) for name in kept}
        return seen | {"_hooks": None, "_results": Results()}

    def update(self, batch: Inputs) -> None:
        """One forward pass without gradients, or several where the memory of the GPU runs out; the
        hooks do the rest.
        """
        assert self._hooks is not None, "update works inside of the with block only"
        self.halving.run(batch, self._pass)
        self.images += len(batch)

    def _pass(self, batch: Inputs, left_out: frozenset[Key], seen: set[Key]) -> None:
        with self._results.of_pass():
            self._forward(batch, left_out, seen)

    def _forward(self, batch: Inputs, left_out: frozenset[Key], seen: set[Key]) -> None:
        assert self._hooks is not None
        self._left_out, self._seen = left_out, seen
        self._order.begin(batch.place)
        self._hooks.begin(
            BatchContext(batch.images, batch.groups, self._model.prefix_tokens, batch.valid)
        )
        if self.attention is not None:
            size = input_size(batch)
            self.attention.begin(
                len(batch), size, batch.valid, batch.place, left_out, seen, self._results
            )
        # counting functional norms costs time, so only the first forward pass is looked at
        first = _earlier(batch.place, self._counted)
        module = self._model.module
        with self._hooks.counting_functional(module) if first else nullcontext() as calls:
            forward(self._model, batch, self._autocast)
        if calls is not None:
            self.functional, self._counted = dict(sorted(calls.items())), batch.place

    def _receive(self, name: str, call: int, observed: Observed) -> None:
        """What a hook saw: the `call`-th call of the layer `name` in the running pass."""
        key = (name, call)
        self._order.see(key)
        if key in self._left_out:
            return
        if key not in self._statistics:
            self._statistics[key] = LayerStatistics(self._plan, observed.channels)
        grid = observed.kinds.tobytes()
        if grid not in self._choices:
            self._choices[grid] = RowChoice(self._plan, observed.kinds)
        self._statistics[key].update(observed, self._choices[grid], self._results)
        if observed.x.is_cpu:  # else it counts at the end of a pass that succeeds
            self._seen.add(key)

    def merge(self, other: Worker) -> None:
        """Take over what another worker saw of other batches; that one is of no use afterwards."""
        self.settle()
        other.settle()
        for key, statistics in other._statistics.items():
            if key in self._statistics:
                self._statistics[key].merge(statistics)
            else:
                self._statistics[key] = statistics
        self._order.merge(other._order)
        if self.attention is not None and other.attention is not None:
            self.attention.merge(other.attention)
        if other._counted is not None and _earlier(other._counted, self._counted):
            self.functional, self._counted = other.functional, other._counted
        self.halving.merge(other.halving)
        self.images += other.images

    def state(self) -> tuple[dict[str, Any], State]:
        """What was seen: facts for JSON, and arrays. A worker that is made of them goes on as this
        one would, to the bit.
        """
        self.settle()
        channels = {key: len(each.moments.count) for key, each in self._statistics.items()}
        facts = {
            "images": self.images,
            "functional": self.functional,
            "counted": self._counted,
            "halving": self.halving.facts(),
            "order": self._order.state(),
            "layers": [[*key, channels[key]] for key in self._statistics],
        }
        arrays: State = {}
        for number, statistics in enumerate(self._statistics.values()):
            arrays |= put_under(str(number), statistics.state())
        if self.attention is not None:
            facts["attention"], read = self.attention.state()
            arrays |= put_under("attention", read)
        return facts, arrays

    def restore(self, facts: Mapping[str, Any], arrays: State) -> None:
        """Go on from what another worker of the same model and plan saw. Raises KeyError,
        ValueError, TypeError or IndexError for anything else.
        """
        self.images, self.functional = int(facts["images"]), dict(facts["functional"])
        self._counted = facts["counted"]
        self.halving.restore(facts["halving"])
        self._order.restore(facts["order"])
        for number, (name, call, channels) in enumerate(facts["layers"]):
            statistics = LayerStatistics(self._plan, channels)
            statistics.restore(taken_from(str(number), arrays))
            self._statistics[name, call] = statistics
        if self.attention is not None:
            self.attention.restore(facts["attention"], taken_from("attention", arrays))

    def layers(self, chosen: list[Layer]) -> CapturedLayers:
        """Layers in execution order, then those never called. A module called k times is k layers
        `name#1` .. `name#k`.
        """
        self.settle()
        by_module = {layer.module: layer for layer in chosen}
        several = {name for name, call in self._order if call > 1}
        captured: CapturedLayers = []
        for depth, (name, call) in enumerate(self._order):
            statistics = self._statistics[name, call]
            full = f"{name}#{call}" if name in several else name
            channels = len(statistics.moments.count)
            layer = replace(by_module[name], name=full, depth=depth, channels=channels)
            captured.append((layer, statistics))
        called = {name for name, _ in self._order}
        for layer in chosen:
            if layer.module not in called:
                captured.append((replace(layer, depth=len(captured)), None))
        return captured


def _earlier(batch: int, other: int | None) -> bool:
    return other is None or batch < other

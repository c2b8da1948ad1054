"""What a model loses when some of its layers are replaced: measured against its own outputs on the
same images (the numbers: probe.jobs.converting.scores).

Each set of layers costs one pass over the images, once; several sets that are asked for together go
through the network batch by batch. An output error is measured by a module in the layer's slot,
which needs no hook. A layer's output depends on the layers before it only, so one pass with every
layer replaced gives the error of each layer behind all the replaced ones before it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Self

from probe.engines import ENGINES, Elsewhere
from probe.jobs.capturing.capture import check_all_seen
from probe.jobs.capturing.shares import Note, shares_of
from probe.jobs.capturing.travel import travelling
from probe.jobs.converting.eval_data import EvalData, no_images
from probe.jobs.converting.networks import WHOLE, Slots, activate, as_one, hold_rivals
from probe.jobs.converting.scores import Score, Totals
from probe.jobs.converting.worker import Asked, ComparisonWorker, Network, Originals, Request
from probe.models.loading.load import Model


class Comparison:
    """A model with replaceable layers and the images that it is compared on.

        with Comparison(model, slots, data) as comparison:
            comparison.ask([["norm1"], ["norm1", "norm2"]], errors=True)
            comparison.score(["norm1"]), comparison.output_errors["norm1"]

    engine: who runs the network. One whose workers live in other processes has them from the
    beginning of the block to its end, with a copy of the model each; one that works in this process
    needs no block. device: where the user wants the model. on_passes: called with the number of
    forward passes that were done. Outside of its methods every layer of `slots` is the original.

    Known once something was asked: images (how many), classes (of the model), labelled (do the
    images have labels that are classes of the model?), accuracy (of the original).
    """

    def __init__(
        self,
        model: Model,
        slots: Slots,
        data: EvalData,
        engine: Any = ENGINES["local"],
        device: str | None = None,
        on_passes: Callable[[int], None] = lambda passes: None,
    ) -> None:
        self.model, self.slots, self.data = model, slots, data
        self.images, self.classes, self.labelled = 0, 0, False
        self.accuracy: float | None = None
        # relative output error of each layer: alone, and behind the replaced layers before it
        self.output_errors: dict[str, tuple[float, float]] = {}
        self._scores: dict[Network, Score] = {}
        self._engine, self._device, self._on_passes = engine, device, on_passes
        self._shares = shares_of(data.stream)
        self._run: Callable[..., Any] = partial(engine, self._factory(model, slots))
        self._block = ExitStack()

    def __enter__(self) -> Self:
        if isinstance(self._engine, Elsewhere):
            model, slots = self.model, self.slots
            if any(tensor.device.type != "cpu" for tensor in model.module.parameters()):
                model, slots = _in_memory(model, slots)
            hold_rivals(slots)  # what arrives in a process moves to its device: both layers
            try:
                opened = self._engine.opened(self._factory(model, slots), self._asked(Request()))
                self._run = self._block.enter_context(opened)
            finally:
                activate(self.slots, ())
        return self

    def __exit__(self, *error: Any) -> None:
        self._block.__exit__(*error)

    def score(self, replaced: Collection[str], again: bool = False) -> Score:
        """The model with these layers replaced. again: they have changed since."""
        network = frozenset(replaced)
        if again:
            self._scores.pop(network, None)
        self.ask([network])
        return self._scores[network]

    def score_of(self, original: Model, changed: Model) -> Score:
        """Two other networks, on the same images and by the same engine: to processes of its own
        both of them travel.
        """
        model, slots = as_one(original, changed)
        with Comparison(model, slots, self.data, self._engine, self._device) as other:
            return other.score([WHOLE])

    def ask(self, networks: Iterable[Collection[str]], errors: bool = False) -> None:
        """Score all these networks, each the layers that are replaced in it. errors: also the
        output errors, which takes the network with all of them.
        """
        wanted = dict.fromkeys([frozenset(self.slots)] if errors else [])
        wanted |= dict.fromkeys(map(frozenset, networks))
        missing = tuple(each for each in wanted if each and (errors or each not in self._scores))
        if self.images and not missing:
            return
        totals = self._totals(Request(missing, errors and bool(self.slots)))
        self.images, self.classes = totals.images, totals.classes
        self.labelled, self.accuracy = totals.labelled, totals.accuracy
        self._scores[frozenset()] = Score(0.0, 1.0, self.accuracy)
        self._scores |= dict(zip(missing, totals.scores, strict=True))
        if errors:
            self.output_errors = dict(zip(self.slots, totals.output_errors, strict=True))

    def _totals(self, request: Request) -> Totals:
        """What all batches give. Raises ProbeError where there was no image, or not every one."""
        stream = self.data.stream
        skipped: list[tuple[str, str]] = []
        passes = len(request.networks) + (not self.images)  # the original's logits are kept

        def count(batch: Any) -> None:
            number = 1
            if isinstance(batch, Note):  # of a share that was read elsewhere
                number = batch.batches
                skipped.extend(batch.skipped)
            self._on_passes(passes * number)

        worker = self._run(self._asked(request), count)
        batches = [worker.batches[place] for place in sorted(worker.batches)]
        if not batches:
            raise no_images()
        totals = Totals(batches, self.data.labels is not None, self.data.classes)
        if isinstance(self._engine, Elsewhere):
            stream.skipped = sorted(skipped)  # they came in any order; the ids of images are sorted
        check_all_seen(totals.images, stream)
        return totals

    def _asked(self, request: Request) -> Asked:
        return Asked(request, self._shares)

    def _factory(self, model: Model, slots: Slots) -> Callable[[], ComparisonWorker]:
        make_worker = partial(
            ComparisonWorker, slots=slots, labels=self.data.labels, originals=Originals()
        )
        return travelling(self._engine, make_worker, model, self._device)


def _in_memory(model: Model, slots: Slots) -> tuple[Model, Slots]:
    """A copy on the host of both the original layers and the new ones."""
    module, slots = copy.deepcopy((model.module, slots))
    hold_rivals(slots)
    return replace(model, module=module.to("cpu")), slots

"""What a comparison does with each batch: the original once, then every network that is asked for,
each with other layers replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probe.errors import ProbeError
from probe.jobs.capturing.forward import forward
from probe.jobs.capturing.shares import Note, Shares
from probe.jobs.converting.networks import Rivals, Slots, activate, hold_rivals, logits_of
from probe.jobs.converting.scores import BatchSums, right, sums_against
from probe.jobs.inputs import Inputs
from probe.models.loading.load import Model

Network = frozenset[str]  # the layers that are replaced in it
KEPT = 2**28  # bytes of the original's logits that a process keeps for what is asked next


@dataclass(frozen=True)
class Request:
    """What is asked of each batch. errors: also those of the layers' outputs; then the first
    network is the one with all layers replaced.
    """

    networks: tuple[Network, ...] = ()
    errors: bool = False


@dataclass(frozen=True)
class Asked:
    """The batches, each with what is asked of it; so do shares travel: (request, share)."""

    request: Request
    batches: Shares

    def __iter__(self) -> Iterator[tuple[Request, Inputs]]:
        return ((self.request, batch) for batch in self.batches)

    def shares(self) -> Iterator[tuple[Request, Any]]:
        return ((self.request, share) for share in self.batches.shares())

    def read(self, share: tuple[Request, Any]) -> Iterator[tuple[Request, Inputs]]:
        request, own = share
        return ((request, batch) for batch in self.batches.read(own))

    def note(self) -> Note:
        return self.batches.note()


class Originals:
    """The original's logits by the place of the batch, as far as they fit into memory, for all
    workers of a process. Each process has its own.
    """

    def __init__(self) -> None:
        self._logits: dict[int, Tensor] = {}
        self._free = KEPT

    def __reduce__(self) -> Any:
        return Originals, ()

    def get(self, place: int) -> Tensor | None:
        return self._logits.get(place)

    def put(self, place: int, logits: Tensor) -> None:
        if place not in self._logits and logits.nbytes <= self._free:
            self._logits[place] = logits
            self._free -= logits.nbytes


class ComparisonWorker:
    """Runs batches through the original and through networks with replaced layers.

        with ComparisonWorker(model, slots, labels, Originals()) as worker:
            worker.update((Request((frozenset(["norm"]),)), batch))
        worker.batches  # place of the batch -> its sums

    A context manager: inside of the block the layers in `slots` change, outside they are the
    original's. labels (N,): by image index, or None. A worker that was pickled keeps its sums, and
    has no model.
    """

    def __init__(
        self,
        model: Model,
        slots: Slots,
        labels: NDArray[np.int64] | None,
        originals: Originals,
    ) -> None:
        self.batches: dict[int, BatchSums] = {}
        self._model, self._slots, self._labels = model, slots, labels
        self._originals = originals

    def __enter__(self) -> Self:
        activate(self._slots, ())
        return self

    def __exit__(self, *error: Any) -> None:
        activate(self._slots, ())

    def __getstate__(self) -> dict[str, Any]:
        """The sums; the model stays behind."""
        return {"batches": self.batches}

    def update(self, batch: tuple[Request, Inputs]) -> None:
        """Raises ProbeError where a logit of the original is not finite."""
        request, inputs = batch
        rivals = hold_rivals(self._slots) if request.errors else {}
        original = self._original(inputs, measured=bool(rivals))
        labels = self._labels_of(inputs)
        sums = [
            sums_against(original, self._changed(network, inputs, rivals), labels)
            for network in request.networks
        ]
        activate(self._slots, ())
        classes = original.shape[1]
        self.batches[inputs.place] = BatchSums(
            images=len(inputs),
            classes=classes,
            strange=0 if labels is None else int(((labels < 0) | (labels >= classes)).sum()),
            right=right(original, labels),
            networks=np.reshape(np.asarray(sums, np.float64), (-1, 4)),
            errors=np.reshape([[r.alone, r.behind, r.size] for r in rivals.values()], (-1, 3)),
        )

    def merge(self, other: Self) -> None:
        """Take over the batches of another worker. Raises ValueError for one that is here too."""
        if twice := self.batches.keys() & other.batches.keys():
            raise ValueError(f"batch {min(twice)} came twice")
        self.batches |= other.batches

    def _original(self, batch: Inputs, measured: bool) -> Tensor:
        """Its logits. measured: with the layers as they stand, which measure themselves."""
        if not measured:
            if (kept := self._originals.get(batch.place)) is not None:
                return kept
            activate(self._slots, ())
        logits = self._run(batch)
        if not torch.isfinite(logits).all():
            raise ProbeError(
                "the original model gives logits that are not finite: nothing can be compared "
                "with them"
            )
        self._originals.put(batch.place, logits)
        return logits

    def _changed(self, network: Network, batch: Inputs, rivals: dict[str, Rivals]) -> Tensor:
        if rivals and network == rivals.keys():
            for rival in rivals.values():
                rival.changed = True
        else:
            activate(self._slots, network)
        return self._run(batch)

    def _run(self, batch: Inputs) -> Tensor:
        return logits_of(forward(self._model, batch))

    def _labels_of(self, batch: Inputs) -> Tensor | None:
        return None if self._labels is None else torch.from_numpy(self._labels[batch.images])


__all__ = ["Asked", "ComparisonWorker", "Network", "Originals", "Request"]

"""What the layers of a forward pass leave on their device, on its way to the host.

A hook only enqueues work, so that the host stays ahead of the device. At the end of the pass one
transfer fetches what all layers left; it is counted when the next pass has been enqueued, while the
device works on that one. At most one pass is under way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from probe.errors import first_line
from probe.stats.transfer import Transfer

Arrays = dict[str, NDArray]


class Pending(Protocol):
    """What one call of a layer left on its device. Making it has counted nothing."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is fetched, by name."""

    @property
    def urgent(self) -> bool:
        """Does the next pass need what this one found?"""

    def rest(self, arrays: Arrays) -> dict[str, Tensor]:
        """What has to be fetched besides, now that the arrays are there; mostly nothing. It takes
        the place of arrays of the same names.
        """

    def keep(self) -> None:
        """Add up what stays on the device; takes no memory of it."""

    def count(self, arrays: Arrays) -> None:
        """Add the arrays to what was counted before."""


class Results:
    """Of one worker.

        results = Results()
        with results.of_pass():
            forward(batch)  # hooks call results.add(pending)
        results.settle()  # before anything is read

    Of a pass that fails nothing is counted, wherever it fails: it can be repeated in parts.
    """

    def __init__(self) -> None:
        self._added: list[Pending] = []
        self._under_way: _Pass | None = None

    def add(self, pending: Pending) -> None:
        self._added.append(pending)

    @contextmanager
    def of_pass(self) -> Iterator[None]:
        """Raises torch.OutOfMemoryError where the device has no memory left for the transfer."""
        self._added = []
        try:
            yield
            if self._added:
                self._send(_Pass(self._added))
        finally:
            self._added = []

    def settle(self) -> None:
        """Count what is under way; waits for it. Where that takes more memory of the device than it
        has, torch.OutOfMemoryError, and it can be asked for again.
        """
        if self._under_way is not None:
            self._under_way.fetch()
            settled, self._under_way = self._under_way, None
            settled.count()

    def _send(self, sent: _Pass) -> None:
        self.settle()
        if sent.urgent:
            sent.fetch()
        # from here on nothing fails for want of memory, so that nothing is counted in part
        sent.keep()
        self._under_way = sent
        if sent.urgent:
            self.settle()


def count_now(pending: Pending) -> None:
    """Wait for what one call left, and count it."""
    results = Results()
    with results.of_pass():
        results.add(pending)
    results.settle()


class _Pass:
    """What the layers of one pass left."""

    def __init__(self, pending: Sequence[Pending]) -> None:
        self._pending = pending
        self._transfer = _NamedTransfer([each.tensors for each in pending])
        self._arrays: list[Arrays] | None = None

    @property
    def urgent(self) -> bool:
        return any(each.urgent for each in self._pending)

    def keep(self) -> None:
        try:
            for each in self._pending:
                each.keep()
        except torch.OutOfMemoryError as error:  # as torch's deterministic algorithms may
            raise MemoryError(first_line(error)) from error  # in parts, it would count twice

    def fetch(self) -> None:
        """Waits: once for all layers, and once more for those that need the rest."""
        if self._arrays is not None:
            return
        fetched = self._transfer.arrays()
        rest = [each.rest(arrays) for each, arrays in zip(self._pending, fetched, strict=True)]
        if any(rest):
            more = _NamedTransfer(rest).arrays()
            fetched = [first | then for first, then in zip(fetched, more, strict=True)]
        self._arrays = fetched

    def count(self) -> None:
        assert self._arrays is not None
        for each, arrays in zip(self._pending, self._arrays, strict=True):
            each.count(arrays)


class _NamedTransfer:
    """One transfer of several sets of tensors with names."""

    def __init__(self, sets: Sequence[dict[str, Tensor]]) -> None:
        self._names = [list(tensors) for tensors in sets]
        self._transfer = Transfer([tensor for tensors in sets for tensor in tensors.values()])

    def arrays(self) -> list[Arrays]:
        arrays = iter(self._transfer.arrays())
        return [{name: next(arrays) for name in names} for names in self._names]

"""Writing a training to its folder: all files of a moment take their names in one step, by the
first process alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from probe.store.step import Step
from probe.training.folder import LAST, MODEL, RECORD, checkpoint_name, record_bytes
from probe.training.history import Row, table_files
from probe.training.state import Standing, state_bytes, weight_bytes

WEIGHTS, AVERAGED, STATE = LAST


@dataclass
class Saving:
    """module_bytes: the file of evaluated weights, which says how to build the network."""

    folder: Path
    record: dict[str, Any]
    module: nn.Module
    averaged: Any
    optimizer: Any
    scaler: Any
    module_bytes: Callable[[nn.Module], bytes]
    is_first: bool  # is this the first process, the one that writes?
    epochs: int
    keep_every: int | None
    minutes: float
    _saved: float = field(default_factory=time.monotonic)
    place: str = "nothing yet"  # what the folder holds, in words
    unit: str = "epochs"
    tables: Callable[[Sequence[Row], Sequence[Row]], dict[str, bytes]] = table_files

    @property
    def due(self) -> bool:
        """Has it been long since the last save?"""
        return self.is_first and time.monotonic() - self._saved >= 60 * self.minutes

    def save(self, standing: Standing) -> None:
        self._write(self._files(standing), standing)

    def epoch_done(self, standing: Standing, evaluated: nn.Module, number: int) -> None:
        """After epoch `number` (0: before the first)."""
        if not self.is_first:
            self.place = self._words(standing)
            return
        files = self._files(standing) | self.tables(standing.epochs, standing.norms)
        if self.keep_every is not None and number % self.keep_every == 0:
            files[checkpoint_name(number)] = self.module_bytes(evaluated)
        self._write(files, standing)

    def finished(self, standing: Standing, evaluated: nn.Module) -> None:
        if self.is_first:
            self.record["status"] = "finished"
            self._write({MODEL: self.module_bytes(evaluated), **self._record()}, standing)

    def ended(self, status: str) -> str:
        """The end of a training that did not finish: what is left of it, in words."""
        if self.is_first:
            self.record["status"] = status
            with Step(self.folder) as step:
                for name, content in self._record().items():
                    step.put(self.folder / name, content)
        return f"{self.folder} holds {self.place}; the same command continues there"

    def resumed(self, standing: Standing) -> None:
        """The training stands where the folder does."""
        self.place = self._words(standing)

    def _files(self, standing: Standing) -> dict[str, bytes]:
        files = {
            WEIGHTS: weight_bytes(self.module),
            STATE: state_bytes(standing, self.optimizer, self.scaler),
        }
        if self.averaged is not None:
            files[AVERAGED] = weight_bytes(self.averaged.module)
        return files | self._record()

    def _record(self) -> dict[str, bytes]:
        return {RECORD: record_bytes(self.record)}

    def _write(self, files: dict[str, bytes], standing: Standing) -> None:
        with Step(self.folder) as step:
            for name, content in files.items():
                step.put(self.folder / name, content)
        self._saved = time.monotonic()
        self.place = self._words(standing)

    def _words(self, standing: Standing) -> str:
        more = f" and {standing.step} updates of the next" if standing.step else ""
        return f"{standing.epoch} of {self.epochs} {self.unit}{more}"

"""What runs in a process that works on shares: a copy of the job, and one share after the other."""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from probe.errors import ProbeError, named_first_line


@dataclass(frozen=True)
class Part:
    """What came of one share: its worker, pickled, and what is told of it."""

    worker: bytes
    note: Any


@dataclass(frozen=True)
class Failed:
    """The work on a share raised an error, which ends the job."""

    error: BaseException
    where: str  # its traceback

    def again(self) -> BaseException:
        """The error, to be raised in the process of the job; with its traceback where nobody
        expected it.
        """
        if not isinstance(self.error, ProbeError):
            self.error.__cause__ = _InWorker(self.where)
        return self.error


class Lost:
    """The process died in the midst of the share."""


Outcome = Part | Failed | Lost


class Replica:
    """A process's copy of a job: a pair (make_worker, batches), pickled.

    paths: where the process of the job looks for modules, which this one may not know of.
    """

    def __init__(self, job: bytes, threads: int, paths: Sequence[str] = ()) -> None:
        import torch

        sys.path += [path for path in paths if path not in sys.path]
        torch.set_num_threads(threads)
        self._job: Any = job
        self._loaded = False

    def work(self, share: Any) -> Part | Failed:
        """Every batch of a share through a worker that has seen nothing else."""
        try:
            if not self._loaded:  # not before the first share, so that errors have somewhere to go
                self._job, self._loaded = pickle.loads(self._job), True
            make_worker, batches = self._job
            with make_worker() as worker:
                for batch in batches.read(share):
                    worker.update(batch)
            return Part(pickle.dumps(worker), batches.note())
        except Exception as error:
            return Failed(_that_travels(error), traceback.format_exc())


class _InWorker(Exception):
    def __str__(self) -> str:
        return f"in a worker process:\n{self.args[0]}"


def _that_travels(error: Exception) -> Exception:
    """The error, or its text where it cannot be pickled and made again."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(named_first_line(error))
    return error


__all__ = ["Failed", "Lost", "Outcome", "Part", "Replica"]

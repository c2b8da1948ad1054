"""Processes of this machine, each with a copy of the model, and with a GPU where there are some.

They are spawned, as CUDA needs it: a script that asks for them keeps its own work behind
`if __name__ == "__main__":`. A process that dies is replaced.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Self

import torch.multiprocessing as torch_processes

from probe.engines.dealing import Elsewhere, Means
from probe.engines.protocol import Batches
from probe.engines.replica import Lost, Outcome, Replica
from probe.errors import ProbeError, UsageError, named_first_line

WAYS_OUT = "--engine local (engine='local') runs it in this process"


class ProcessPool:
    """So many processes as the means say, or one per GPU, or one per core."""

    def __init__(self, job: tuple[Any, Batches], means: Means) -> None:
        self._job = packed(job, pickle.dumps)
        gpus = torch_processes_gpus() if means.gpus else 0
        cores = usable_cores()
        self._count = means.workers or gpus or cores
        if means.address is not None:
            raise UsageError(f"--address {means.address}: goes with --engine ray")
        self._gpus, self._threads = gpus, max(1, cores // self._count)
        self._processes: list[_Process] = []

    def __enter__(self) -> Self:
        self._processes = [self._started(number) for number in range(self._count)]
        return self

    def __exit__(self, *error: Any) -> None:
        for process in self._processes:
            process.stop()

    @property
    def free(self) -> int:
        return sum(process.number is None for process in self._processes)

    def start(self, number: int, share: Any) -> None:
        next(each for each in self._processes if each.number is None).start(number, share)

    def finished(self) -> list[tuple[int, Outcome]]:
        busy = {each.pipe: each for each in self._processes if each.number is not None}
        ended: list[tuple[int, Outcome]] = []
        for pipe in wait(list(busy)):
            process = busy[pipe]  # type: ignore[index]
            assert process.number is not None
            outcome = process.outcome()
            ended.append((process.number, outcome))
            process.number = None
            if isinstance(outcome, Lost):
                place = self._processes.index(process)
                process.stop()
                self._processes[place] = self._started(place)
        return ended

    def _started(self, place: int) -> _Process:
        gpu = place % self._gpus if self._gpus else None
        return _Process(self._job, self._threads, gpu)


class _Process:
    """One process; `number` is the share that it works on."""

    def __init__(self, job: bytes, threads: int, gpu: int | None) -> None:
        self.number: int | None = None
        self._ready = False
        context = torch_processes.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, threads, gpu), daemon=True)
        self._process.start()
        theirs.close()
        self._job = job

    def start(self, number: int, share: Any) -> None:
        self.number = number
        try:
            if not self._ready:
                self.pipe.send_bytes(self._job)
                self._ready = True
            self.pipe.send(share)
        except OSError:  # it died between two shares; reading from it will tell
            return

    def outcome(self) -> Outcome:
        try:
            outcome: Outcome = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            if self._process.exitcode == 1:  # it never came to work
                raise ProbeError(
                    "a worker process could not start; a script keeps its own work behind "
                    f"`if __name__ == '__main__':`; {WAYS_OUT}"
                ) from None
            return Lost()
        return outcome

    def stop(self) -> None:
        self.pipe.close()
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, threads: int, gpu: int | None) -> None:
    """The whole life of a process: the job, then shares until nobody asks any more."""
    if gpu is not None:  # before anything looks for one
        os.environ["CUDA_VISIBLE_DEVICES"] = _visible()[gpu]
    try:
        replica = Replica(pipe.recv_bytes(), threads)
        while True:
            pipe.send(replica.work(pipe.recv()))
    except (EOFError, OSError, KeyboardInterrupt):
        return


def _visible() -> Sequence[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(n) for n in range(torch_processes_gpus())]


def torch_processes_gpus() -> int:
    """How many GPUs there are, without waking them."""
    import torch

    return torch.cuda.device_count()


def usable_cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def packed(job: tuple[Any, Batches], dumps: Any) -> bytes:
    """The job as it travels. Raises UsageError where it cannot."""
    try:
        data: bytes = dumps(job)
    except Exception as error:  # whatever the objects of a user raise
        raise UsageError(
            "the model, its transform or the mask cannot be sent to another process "
            f"({named_first_line(error)}): {WAYS_OUT}"
        ) from error
    return data


ENGINE = Elsewhere(ProcessPool)

__all__ = ["ENGINE", "ProcessPool", "packed", "usable_cores"]

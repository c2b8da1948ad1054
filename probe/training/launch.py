"""Several processes on this machine, by torch's elastic launcher; processes that torchrun or
`accelerate launch` started are found by their environment.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from probe.errors import ProbeError, UsageError, named_first_line, quiet
from probe.models.loading.load import resolve_device
from probe.records import Progress
from probe.training.folder import Interrupted

Say = Callable[[str], None]
KINDS: dict[str, type[ProbeError]] = {
    each.__name__: each for each in (ProbeError, UsageError, Interrupted)
}


def launched() -> bool:
    """Is this one of several processes that a launcher started?"""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Is this the process that writes and speaks?"""
    return not launched() or os.environ.get("RANK", "0") == "0"


def check_processes(processes: int, device: str | None) -> None:
    """Raises UsageError for more processes than GPUs, and for one GPU that all were to share."""
    wanted = resolve_device(device)
    if wanted.type != "cuda":
        return
    if wanted.index is not None:
        raise UsageError(f"--device {device}: {processes} processes take a GPU each; leave it out")
    if processes > torch.cuda.device_count():
        raise UsageError(
            f"--processes {processes}: there are {torch.cuda.device_count()} GPUs; give at most as "
            "many, or --device cpu"
        )


def run_processes(
    number: int, work: Callable[..., None], asked: tuple[Any, ...], progress: Progress, say: Say
) -> None:
    """Calls `work(*asked, progress, say)` in each of `number` new processes; what the first one
    reports reaches `progress` and `say` here. Raises the first error of any of them.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    messages = torch.multiprocessing.get_context("spawn").SimpleQueue()
    errors: dict[int, ProbeError] = {}  # by process
    listener = threading.Thread(target=_listen, args=(messages, progress, say, errors))
    listener.start()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=number,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    failure: BaseException | None = None
    try:
        with (
            quiet("torch.distributed.elastic.agent.server.api", logging.CRITICAL),
            quiet("torch.distributed.elastic.multiprocessing.api", logging.CRITICAL),
            _threads(number),
        ):
            elastic_launch(config, _in_a_process)(work, asked, messages)
    except (ChildFailedError, SignalException, KeyboardInterrupt) as error:
        failure = error
    finally:
        messages.put(None)
        listener.join()
    if errors:
        raise errors[min(errors)]
    if isinstance(failure, ChildFailedError):
        raise ProbeError(f"one of the {number} processes ended: {named_first_line(failure)}")
    if failure is not None:
        raise Interrupted("interrupted; the same command continues at the last checkpoint")


def _listen(messages: Any, progress: Progress, say: Say, errors: dict[int, ProbeError]) -> None:
    """Until None comes."""
    while (message := messages.get()) is not None:
        kind, *content = message
        if kind == "progress":
            progress(*content)
        elif kind == "say":
            say(*content)
        else:
            process, line = content
            errors[process] = KINDS.get(kind, ProbeError)(line)


def _in_a_process(work: Callable[..., None], asked: tuple[Any, ...], messages: Any) -> None:
    """Errors travel as messages, and the process ends at once: the launcher then ends those that
    wait for it.
    """

    process = int(os.environ["RANK"])

    def progress(stage: str, done: int, total: int | None, message: str = "") -> None:
        messages.put(("progress", stage, done, total, message))

    try:
        work(*asked, progress, lambda line: messages.put(("say", line)))
    except ProbeError as error:
        messages.put((type(error).__name__, process, str(error)))
        os._exit(1)
    except BaseException as error:  # a traceback of each process would bury the line
        messages.put(("ProbeError", process, f"unexpected {named_first_line(error)}"))
        os._exit(1)


@contextmanager
def _threads(processes: int) -> Iterator[None]:
    """The cores are shared out, unless the user did."""
    name = "OMP_NUM_THREADS"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(max(1, (os.cpu_count() or 1) // processes))
    try:
        yield
    finally:
        os.environ.pop(name)

"""Ray actors, on this machine or on a cluster, each with a copy of the model and a GPU where there
are some (https://docs.ray.io). Needs the extra `ray`.

Ray starts actors where there is room and tells when one is lost; what is kept of the shares, and
that each counts once, is decided here: an actor task that Ray itself tried again could count twice
what had been told already (`max_task_retries` is 0, its default: at most once).
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from probe.engines.dealing import Elsewhere, Means
from probe.engines.processes import packed, usable_cores
from probe.engines.protocol import Batches
from probe.engines.replica import Failed, Lost, Outcome, Replica
from probe.errors import ProbeError, UsageError, first_line, last_line, quiet

SETTINGS = {  # of a cluster that is started here
    "RAY_USAGE_STATS_ENABLED": "0",  # they would be sent
    "RAY_worker_niceness": "0",  # workers would stand back behind all else
}
PATIENCE = 5.0  # seconds in which a cluster answers
MOST_FAILED = 10  # actors that are lost before they came
NO_PLACE = 120.0  # seconds without an actor after which a line is said


class RayPool:
    """So many actors as the means say, or one per GPU, or one per core of the cluster."""

    def __init__(self, job: tuple[Any, Batches], means: Means) -> None:
        self._ray = ray_library()
        self._means = means
        self._job = packed(job, self._ray.cloudpickle.dumps)
        self._shut_down = False
        self._failed_starts = 0
        self._coming: dict[Any, Any] = {}  # what an actor answers when it is there -> actor
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, int]] = {}  # what will come -> actor, share

    def __enter__(self) -> Self:
        self._shut_down = connect(self._ray, self._means.address)
        resources = self._ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if self._means.gpus else 0
        count = self._means.workers or gpus or max(1, int(resources.get("CPU", 1)))
        cpus = cpus_each([node["Resources"].get("CPU", 0) for node in self._ray.nodes()], count)
        actor = self._ray.remote(Replica)
        self._actor = actor.options(num_cpus=cpus, num_gpus=1 if gpus else 0, max_restarts=0)
        self._threads = max(1, int(cpus))
        self._sent = self._ray.put(self._job)
        for _ in range(count):
            self._add()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._shut_down:
            self._ray.shutdown()
            return
        running = [actor for actor, _ in self._running.values()]
        for actor in (*self._coming.values(), *self._idle, *running):
            self._ray.kill(actor)

    @property
    def free(self) -> int:
        return len(self._idle)

    def start(self, number: int, share: Any) -> None:
        actor = self._idle.pop()
        self._running[actor.work.remote(share)] = actor, number

    def finished(self) -> list[tuple[int, Outcome]]:
        """An actor that waits for a place in the cluster has no share that would wait with it."""
        waited_for = [*self._coming, *self._running]
        ready, _ = self._ray.wait(waited_for, num_returns=1, timeout=NO_PLACE)
        if not ready and not self._running:
            warnings.warn(
                f"none of {len(self._coming)} Ray workers has started yet; free CPUs in the "
                f"cluster: {self._ray.available_resources().get('CPU', 0):g}",
                stacklevel=2,
            )
        for ref in [ref for ref in ready if ref in self._coming]:
            self._arrive(ref)
        return [self._ended(ref) for ref in ready if ref in self._running]

    def _add(self) -> None:
        actor = self._actor.remote(self._sent, self._threads, list(sys.path))
        self._coming[actor.__ray_ready__.remote()] = actor

    def _arrive(self, ref: Any) -> None:
        actor = self._coming.pop(ref)
        try:
            self._ray.get(ref)
            self._idle.append(actor)
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            if getattr(error, "actor_init_failed", False) or self._failed_starts > MOST_FAILED:
                raise ProbeError(
                    f"a Ray worker could not start: {last_line(error)}; every machine needs the "
                    "same packages as this one"
                ) from error
            self._add()  # its machine was lost before it came

    def _ended(self, ref: Any) -> tuple[int, Outcome]:
        actor, number = self._running.pop(ref)
        try:
            outcome: Outcome = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            return number, Failed(error, str(error))
        except self._ray.exceptions.RayError:  # of the actor, its node, or what it had sent
            self._ray.kill(actor)
            self._add()
            return number, Lost()
        self._idle.append(actor)
        return number, outcome


def ray_library() -> Any:
    """The package. Raises UsageError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--engine ray needs the package `ray`: install the extra, pip install "
            "'probe-norms[ray]'; --engine processes does without"
        ) from None
    return ray


def connect(ray: Any, address: str | None) -> bool:
    """Connects to the cluster at `address` (`auto`: that of this machine), or starts one on this
    machine; one that the caller is connected to stays. Was something begun that is to be ended?

    Raises UsageError where no cluster answers.
    """
    if ray.is_initialized():
        return False
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    silent = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if address == "local":
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        _start(ray, num_cpus=usable_cores(), include_dashboard=False, **silent)
        return True
    if address != "auto":
        _check_answers(address)
    try:
        ray.init(address, **silent)
    except (ConnectionError, ValueError, RuntimeError, SystemExit) as error:
        reason = "it broke off" if isinstance(error, SystemExit) else first_line(error)
        raise UsageError(_no_cluster(address, reason)) from error
    return True


def _start(ray: Any, **options: Any) -> None:
    """A cluster of this machine alone. Ray gives itself half a minute for that."""
    try:
        with quiet("ray", logging.ERROR):  # it tells how it authenticates
            ray.init("local", **options)
    except Exception as error:  # Ray raises it as such
        raise ProbeError(
            f"Ray did not start on this machine ({first_line(error)}): is it busy? Try again, or "
            "give --engine processes, which does without"
        ) from error


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection that several pools share."""
    ray = ray_library()
    begun = connect(ray, address)
    try:
        yield
    finally:
        if begun:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes, and then end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(_no_cluster(address, "it is no HOST:PORT"))
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UsageError(_no_cluster(address, str(reason).lower())) from None


def _no_cluster(address: str, reason: str) -> str:
    return (
        f"--address {address}: no Ray cluster answers there ({reason}); accepted: HOST:PORT of a "
        "head node (usually port 6379), or auto for the cluster of this machine; without "
        "--address one is started"
    )


def cpus_each(nodes: list[float], count: int) -> float:
    """CPUs for each of `count` actors so that all of them have room on machines with so many: whole
    ones, or a share of one where there are fewer than actors.
    """
    most = int(sum(nodes) // count)
    for cpus in range(most, 0, -1):
        if sum(int(node // cpus) for node in nodes) >= count:
            return cpus
    return int(sum(nodes) / count * 1000) / 1000


ENGINE = Elsewhere(RayPool)

__all__ = ["ENGINE", "RayPool", "connect", "cpus_each"]

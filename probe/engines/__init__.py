"""Who executes the work: an engine deals batches out to workers and merges what comes back.

A new engine is a file with a function that fits `Engine`, or with a pool of processes (`Elsewhere`
makes an engine of it), and an entry in ENGINES. A library that it needs is imported when it is
used: naming an engine loads none.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from probe.engines import local, processes, ray
from probe.engines.dealing import Elsewhere, Means
from probe.engines.protocol import Batches, Engine, Worker
from probe.engines.tree import Node, Tree
from probe.errors import UsageError, unknown

ENGINES: dict[str, Any] = {
    "local": local.run,
    "processes": processes.ENGINE,
    "ray": ray.ENGINE,
}


def find_engine(name: str, means: Means | None = None) -> Any:
    """The engine of that name, an `Engine` or `Elsewhere`. Raises UsageError for any other, and for
    an address that it has no use for.

    means: of one whose workers live in other processes.
    """
    if name not in ENGINES:
        raise unknown("--engine", name, ENGINES)
    engine = ENGINES[name]
    if isinstance(engine, Elsewhere):
        return replace(engine, means=means or Means())
    if means is not None and means.address is not None:
        raise UsageError(f"--address {means.address}: goes with --engine ray")
    return engine


def connected(name: str, address: str | None = None) -> AbstractContextManager[Any]:
    """Several jobs of an engine one after the other use the same cluster inside of the block."""
    find_engine(name, Means(address=address))
    return ray.connected(address) if name == "ray" else nullcontext()


__all__ = [
    "ENGINES",
    "Batches",
    "Elsewhere",
    "Engine",
    "Means",
    "Node",
    "Tree",
    "Worker",
    "connected",
    "find_engine",
]

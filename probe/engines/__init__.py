"""Who executes the work: an engine deals batches out to workers and merges what comes back.

A new engine is a file with a function that fits `Engine` and an entry in ENGINES. A library that it
needs is imported inside that function: naming an engine loads none.
"""

from probe.engines import local
from probe.engines.protocol import Engine, Worker
from probe.errors import unknown

ENGINES: dict[str, Engine] = {"local": local.run}


def find_engine(name: str) -> Engine:
    """The engine of that name. Raises UsageError for any other."""
    if name not in ENGINES:
        raise unknown("--engine", name, ENGINES)
    return ENGINES[name]


__all__ = ["ENGINES", "Engine", "Worker", "find_engine"]

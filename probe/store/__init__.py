"""Runs on disk: written once and atomically, read as pandas tables, by any parquet reader too."""

from __future__ import annotations

from probe.store.alphas import read_alphas, write_alphas, write_state
from probe.store.run import Run, open_run, run_names
from probe.store.verify import verify_run
from probe.store.writer import RunWriter

__all__ = [
    "Run",
    "RunWriter",
    "open_run",
    "read_alphas",
    "run_names",
    "verify_run",
    "write_alphas",
    "write_state",
]

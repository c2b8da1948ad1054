"""`track.json`: what a tracking is of, so that the same command goes on where it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probe.errors import UsageError
from probe.formatting import json_bytes, plain
from probe.store.outputs import NO_CONTENT, OVERWRITE
from probe.store.staging import is_left_over
from probe.store.step import Step
from probe.training.folder import own_record
from probe.training.tracking.tables import FAILED, Tracked

RECORD = "track.json"
FORMAT, VERSION = "probe-track", 1
RUNS, FIGURES, REPORT = "runs", "figures", "report.html"
CONTENTS = frozenset(
    (RECORD, RUNS, FIGURES, REPORT)
    + ("track.parquet", "track.csv", "attention.parquet", "attention.csv")
)


def read_record(folder: Path) -> dict[str, Any]:
    """What `track.json` says. Raises UsageError for a folder that holds no tracking."""
    return own_record(folder / RECORD, FORMAT, VERSION, "tracking")


def check_place(folder: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
    """May a tracking with these settings be written here? Raises UsageError for a place that is
    taken by something else, or by a tracking of other settings.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; give a folder")
    names = sorted(each.name for each in folder.iterdir()) if folder.exists() else []
    names = [name for name in names if name not in NO_CONTENT and not is_left_over(name)]
    foreign = [name for name in names if name not in CONTENTS]
    if foreign:
        raise UsageError(
            f"--out {folder} holds other files ({', '.join(foreign[:3])}): give a new folder"
        )
    if not names or overwrite or RECORD not in names:
        return
    before = read_record(folder).get("settings") or {}
    other = [name for name in settings if before.get(name) != plain(settings[name])]
    if other:
        name = other[0]
        raise UsageError(
            f"--out {folder} holds a tracking with {name} {before.get(name)!r}, not "
            f"{plain(settings[name])!r}: give the same to go on, another folder, or {OVERWRITE}"
        )


def write_record(
    folder: Path, settings: Mapping[str, Any], tracked: Sequence[Tracked], total: int
) -> None:
    """What is done so far, in one step. Same checkpoints, same bytes: nothing from the clock."""
    with Step(folder) as step:
        step.put(folder / RECORD, record_bytes(settings, tracked, total))


def record_bytes(settings: Mapping[str, Any], tracked: Sequence[Tracked], total: int) -> bytes:
    models = [each.run.manifest["model"] for each in tracked if each.run is not None]
    told = ("name", "origin", "parameters", "input_size", "prefix_tokens")
    return json_bytes(
        {
            "format": FORMAT,
            "version": VERSION,
            "status": "finished" if len(tracked) == total else "running",
            "settings": settings,
            "model": {name: models[0].get(name) for name in told} if models else None,
            "unit": tracked[0].checkpoint.unit if tracked else None,
            "checkpoints": [_entry(each) for each in tracked],
        }
    )


def _entry(tracked: Tracked) -> dict[str, Any]:
    """One checkpoint; runs lie in `runs/` under its name."""
    run, checkpoint = tracked.run, tracked.checkpoint
    return {
        "checkpoint": checkpoint.name,
        "epoch": checkpoint.epoch,
        "file": str(checkpoint.path),
        "status": FAILED if run is None else "captured",
        "reason": tracked.reason or None,
        "fingerprint": None if run is None else run.manifest["model"].get("fingerprint"),
    }


__all__ = ["FIGURES", "RECORD", "REPORT", "RUNS", "check_place", "read_record", "write_record"]

"""What a directory on the command line holds, told without opening it."""

from __future__ import annotations

from pathlib import Path

# files that a training, a tracking and a comparison have and a run has not; named here, as their
# homes need torch
COMPARISON = "comparison.json"
RECORDS = ("training.json", "track.json", COMPARISON)


def holds_training(folder: str) -> bool:
    """Is this the folder of a training, a tracking or a comparison, not of a run?"""
    path = Path(folder).expanduser()
    return any((path / name).is_file() for name in RECORDS)


def holds_comparison(folder: str) -> bool:
    return (Path(folder).expanduser() / COMPARISON).is_file()

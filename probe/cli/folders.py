"""What a directory on the command line holds, told without opening it."""

from __future__ import annotations

from pathlib import Path

# files that a training and a tracking have and a run has not; named here, as their homes need torch
RECORDS = ("training.json", "track.json")


def holds_training(folder: str) -> bool:
    """Is this the folder of a training or of a tracking, not of a run?"""
    path = Path(folder).expanduser()
    return any((path / name).is_file() for name in RECORDS)

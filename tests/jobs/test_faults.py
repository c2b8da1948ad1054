"""Every command that writes files, killed and starved: the old files or the new ones, never some of
each, and it can be repeated. docs/trust.md shows the table.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import fault_trials

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "trust.md"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forked processes")


def trials(*arguments: str) -> list[str]:
    """Rows of the table, made by a process that has no threads of other tests."""
    done = subprocess.run(
        [sys.executable, "-m", "support.fault_trials", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("| ")]


def survived(row: str) -> bool:
    """Was none of the outcomes neither the old files nor the new ones?"""
    cells = [cell.split(", ") for cell in row.strip("| ").split(" | ")[1:]]
    return bool(cells) and all(cell[-1] == "0" for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("command", fault_trials.COMMANDS)
def test_a_command_that_is_killed_or_finds_no_room_leaves_old_files_or_new_ones(
    command: str,
) -> None:
    [_, row] = trials(command)
    assert row.startswith(f"| {command} | ")
    assert survived(row), row


def test_the_page_shows_trials_of_every_command_and_that_all_survived() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for command in fault_trials.COMMANDS:
        [row] = [line for line in lines if line.startswith(f"| {command} | ")]
        assert survived(row), row

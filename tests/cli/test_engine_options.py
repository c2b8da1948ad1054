"""Engines on the command line."""

from __future__ import annotations

import pytest

from probe.cli import options
from probe.cli.main import execute
from probe.engines import ENGINES
from probe.errors import UsageError


def test_the_command_line_knows_every_engine() -> None:
    assert set(options.ENGINES) == set(ENGINES)


@pytest.mark.parametrize("command", ["", "capture", "attention"])
def test_torchrun_is_refused_in_one_line(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UsageError, match=r"process 1 of 2 \(torchrun\): .*--engine processes"):
        execute(command.split())


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(options.Refused, match="must be one of local, processes, ray"):
        execute(["capture", "--engine", "rai"])

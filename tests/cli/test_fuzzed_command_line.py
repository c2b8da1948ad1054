"""Random command lines: help, a job, or one line; never another error.

Trials are drawn by fixed seeds, so that a failure comes again.
"""

from __future__ import annotations

import random
import typing
from typing import Any

import pytest
import typer

from probe.cli.failure import options_of
from probe.cli.main import app

VALUES = (
    *("", "0", "-1", "1", "1.5", "1e9", "9" * 400, "nan", "all", "x" * 5000, "--", "-", "-q", "~"),
    *("\0", "\n", "\x1b[2J", "é", "\ud800", "%s", "{}", "$HOME", "a,b", ",", "3,5", "14x14", "*"),
    *("../..", "/dev/null", "runs/a", "bundled:vit_cifar10", "x.csv", "x.safetensors", "cpu"),
)


def words() -> tuple[list[str], list[str]]:
    """The commands of the program, and all their options."""
    group = typing.cast(Any, typer.main.get_command(app))
    commands = {"": group} | group.commands
    options = {
        option
        for command in commands.values()
        for option in options_of(command.make_context("x", [], resilient_parsing=True))
    }
    return list(commands), [*sorted(options), "-q", "-h", "--nonsense"]


def line(chance: random.Random, commands: list[str], options: list[str]) -> list[str]:
    parts = [chance.choice(commands)] if chance.random() < 0.9 else []
    for _ in range(chance.randint(0, 6)):
        parts.append(chance.choice(options if chance.random() < 0.5 else VALUES))
        if parts[-1].startswith("--") and chance.random() < 0.2:
            parts[-1] += f"={chance.choice(VALUES)}"
    return [part for part in parts if part or chance.random() < 0.5]


@pytest.mark.parametrize("seed", range(3))
def test_any_command_line_is_answered_or_refused_in_one_line(
    seed: int, cli: Any, jobs: Any
) -> None:
    chance, known = random.Random(seed), words()
    codes = set()
    for trial in range(50):
        arguments = line(chance, *known)
        codes.add(cli(*arguments).code)
        errors = [text for text in cli.err.splitlines() if text.startswith("probe-norms: error: ")]
        assert cli.code in (0, 1, 2), (seed, trial, arguments)
        assert len(errors) == (cli.code != 0), (seed, trial, arguments, cli.err)
        assert "\x1b" not in cli.err, (seed, trial, arguments)
        if cli.code == 2:
            assert cli.out == "", (seed, trial, arguments)
            assert len(cli.err) < 2200, (seed, trial, arguments)
    assert 2 in codes

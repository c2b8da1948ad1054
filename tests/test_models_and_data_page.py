"""Every command line of docs/models_and_data.md is one that the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from probe.cli.main import app
from probe.models.loading.load import split_name
from probe.models.loading.origins import ORIGINS

PAGE = (Path(__file__).parents[1] / "docs" / "models_and_data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]


def parsed(line: str) -> dict[str, Any]:
    """The options of a command line, checked by the program's own parsers; nothing is run."""
    program, *words = shlex.split(line)
    assert program == "probe-norms"
    group: Any = typer.main.get_command(app)
    command = group.commands[words.pop(0)] if words[0] in group.commands else group
    return command.make_context("probe-norms", words).params


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_is_accepted(line: str) -> None:
    options = parsed(line)
    if options.get("model"):
        assert split_name(options["model"])[0] in ORIGINS


def test_every_origin_of_models_and_every_option_stands_on_the_page() -> None:
    told = [parsed(line) for line in LINES]
    names = [options["model"] for options in told if options.get("model")]
    assert {split_name(name)[0] for name in names} == set(ORIGINS)
    for option in ("weights", "data", "layers", "dtype", "autocast"):
        assert any(options.get(option) not in (None, "*", "pretrained") for options in told)


def test_the_suffixes_of_checkpoints_are_those_that_are_read() -> None:
    from probe.models.loading.weights import PICKLES

    (told,) = re.findall(r"a pickle \((.*?)\)", PAGE)
    assert told == ", ".join(f"`{suffix}`" for suffix in PICKLES)

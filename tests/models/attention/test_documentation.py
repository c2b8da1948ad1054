"""docs/attention.md says what the code says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import probe

PAGE = Path(__file__).parents[3] / "docs" / "attention.md"
ROOM = Path(probe.__file__).parent / "models" / "attention"
TABLE = PAGE.read_text().split("| --- | --- |")[1].split("\n\n")[0]
FIRST_CELLS = [row[: row.rfind("|", 0, -1)] for row in TABLE.splitlines()]
REASONS = [text for cell in FIRST_CELLS for text in re.findall("`([^`]+)`", cell)]


def messages() -> list[str]:
    """Every text that the room may say; the changing parts of a message end one and begin the
    next."""
    trees = [ast.parse(path.read_text()) for path in ROOM.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [node.value for node in nodes if isinstance(node.value, str)]


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_of_the_page_is_one_that_the_code_gives(reason: str) -> None:
    assert any(reason in text for text in messages())


def test_the_page_names_the_kinds_of_refusal() -> None:
    assert len(REASONS) > 10


@pytest.mark.parametrize("path", re.findall(r"`(probe/[^`]+)`", PAGE.read_text()))
def test_every_path_of_the_page_is_there(path: str) -> None:
    assert (ROOM.parents[2] / path).exists()

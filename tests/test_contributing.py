"""CONTRIBUTING says what is: the house as the layering test knows it, and files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import probe
from test_layering import RANKS, ROOMS

ROOT = Path(probe.__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def names(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_]+)`", text))


def test_the_table_of_the_house_is_the_one_that_the_layering_test_holds() -> None:
    rows = re.findall(r"^\| (\d) \| (.*?) \|", PAGE, re.MULTILINE)
    told: list[set[str]] = [set() for _ in RANKS]
    for rank, parts in rows:
        told[int(rank)] |= names(parts)
    assert told == RANKS


@pytest.mark.parametrize("part", sorted(ROOMS))
def test_the_rooms_stand_in_their_order(part: str) -> None:
    match = re.search(
        rf"^Rooms of `{part}`, from the ground up: (.*?)\.$", PAGE, re.MULTILINE | re.DOTALL
    )
    assert match is not None
    assert [names(rooms) for rooms in match[1].split(";")] == ROOMS[part]


def test_every_file_that_is_named_is_there() -> None:
    paths = set(re.findall(r"`((?:probe|tests|docs|notebooks|figures|\.ci)/[\w./]*)`", PAGE))
    assert paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []

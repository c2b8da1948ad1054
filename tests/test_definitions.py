"""The page of definitions says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import probe
from probe.curves import FAMILIES
from probe.records import Status

PAGE = (Path(probe.__file__).parents[1] / "docs" / "definitions.md").read_text(encoding="utf-8")


def test_every_status_of_a_fitted_run_stands_there_with_its_meaning() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    expected = {str(status): status.meaning for status in Status if status != Status.CAPTURED}
    assert {name: rows.get(name) for name in expected} == expected


def test_every_family_is_named() -> None:
    named = re.search(r"^\| family \| (.*) \|$", PAGE, re.MULTILINE)
    assert named is not None
    assert re.findall(r"`(\w+)`", named[1]) == list(FAMILIES)

"""Patterns of layer names: the same wherever `layers=` or `--layers` stands."""

from __future__ import annotations

import pytest

from probe.layer_names import chooses_all, matches, split_patterns, unmatched

NAMES = ["blocks.0.norm1", "blocks.0.norm2", "blocks.10.norm1", "norm", "odd[0]"]


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ("*", NAMES),
        ("norm", ["norm"]),
        ("blocks.*.norm1", ["blocks.0.norm1", "blocks.10.norm1"]),
        ("blocks.?.norm*", ["blocks.0.norm1", "blocks.0.norm2"]),
        (" norm , blocks.0.* ", ["blocks.0.norm1", "blocks.0.norm2", "norm"]),
        (["norm", "blocks.0.norm1,blocks.0.norm2"], ["blocks.0.norm1", "blocks.0.norm2", "norm"]),
        ("odd[0]", ["odd[0]"]),
        ("Norm", []),
        ("", []),
        ("blocks.*,!*.norm2", ["blocks.0.norm1", "blocks.10.norm1"]),
        ("!*.norm2,blocks.*", ["blocks.0.norm1", "blocks.10.norm1"]),
        ("!blocks.*", ["norm", "odd[0]"]),
        ("! blocks.* , !norm", ["odd[0]"]),
        (["!*norm*"], ["odd[0]"]),
        ("!odd[0]", NAMES[:4]),
        ("norm,!norm", []),
        ("blocks.[!1]*.norm1", ["blocks.0.norm1"]),
        ("!", NAMES),
    ],
)
def test_a_name_matches_globs_and_whole_names_joined_by_commas(patterns, chosen) -> None:
    assert [name for name in NAMES if matches(name, patterns)] == chosen


def test_patterns_without_a_match_are_told_one_by_one() -> None:
    assert unmatched(NAMES, "norm, head.*, blocks.?.norm3") == ["head.*", "blocks.?.norm3"]


def test_a_pattern_that_takes_nothing_away_is_told_too() -> None:
    assert unmatched(NAMES, "blocks.*,!*.norm2,!head*, !odd[0]") == ["!head*"]


@pytest.mark.parametrize(
    ("patterns", "all_of_them"),
    [("*", True), (["norm", "*"], True), ("*,!norm", False), ("!norm", False), ("b*", False)],
)
def test_only_a_star_without_exceptions_chooses_every_layer(patterns, all_of_them) -> None:
    assert chooses_all(patterns) is all_of_them


def test_empty_parts_are_no_patterns() -> None:
    assert split_patterns(" a,, b ,") == ["a", "b"]

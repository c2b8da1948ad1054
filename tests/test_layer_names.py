"""Patterns of layer names: the same wherever `layers=` or `--layers` stands."""

from __future__ import annotations

import pytest

from probe.errors import UsageError
from probe.layer_names import chooses_all, matches, select, split_patterns, unmatched

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


def test_the_path_of_a_module_means_all_its_calls() -> None:
    calls = ["shared#1", "shared#2", "norm"]
    assert select(calls, "share?", "layers") == calls[:2]
    assert select(calls, "shared#2", "layers") == ["shared#2"]
    assert select(calls, "!shared", "layers") == ["norm"]
    assert select(calls, "!shared#2", "layers") == ["shared#1", "norm"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("*,blocks.0.norm3", r"--layers 'blocks.0.norm3' matches none of the 5 norms \(nearest: b"),
        (["norm", "xyz"], r"--layers 'xyz' matches none of the 5 norms \(such as blocks.0.norm1, "),
        (" , ", "--layers '' matches none of the 5 norms"),
        ([], "--layers '' matches none of the 5 norms"),
        ("!blocks.0.norm3", r"--layers '!blocks.0.norm3' matches none .*\(nearest: b"),
        ("norm, !norm", "--layers 'norm,!norm' takes away every one of the 5 norms"),
        ("!*", r"--layers '!\*' takes away every one of the 5 norms"),
    ],
)
def test_each_pattern_must_match_something(patterns, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        select(NAMES, patterns, "norms")
    assert "\n" not in str(caught.value)


def test_names_are_selected_in_their_own_order() -> None:
    assert select(iter(NAMES), "norm,blocks.0.*", "norms") == [*NAMES[:2], "norm"]


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

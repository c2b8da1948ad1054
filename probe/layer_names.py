"""Layers by name: what `layers=` and `--layers` mean, wherever they stand.

A pattern is a glob over module paths (`blocks.*.norm1`) or a whole name; several are joined by
commas, or given as a list. `*` crosses dots, as module paths have no folders. A module that one
forward pass calls several times is the layers `path#1`, `path#2`, ...: a pattern of the path means
all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from probe.errors import UsageError, nearest

Patterns = str | Sequence[str]


def split_patterns(patterns: Patterns) -> list[str]:
    """The single patterns of `a,b` or of `["a", "b,c"]`, without blanks around them."""
    parts = [patterns] if isinstance(patterns, str) else patterns
    return [pattern for part in parts for each in part.split(",") if (pattern := each.strip())]


def matches(name: str, patterns: Patterns) -> bool:
    """Does the name of a layer match one of the patterns?

    A whole name matches itself even where it holds characters that globs read otherwise (`a[0]`).
    """
    names = {name, name.partition("#")[0]}
    return any(
        each == pattern or fnmatchcase(each, pattern)
        for pattern in split_patterns(patterns)
        for each in names
    )


def unmatched(names: Iterable[str], patterns: Patterns) -> list[str]:
    """The patterns that match none of the names."""
    names = list(names)
    return [
        pattern
        for pattern in split_patterns(patterns)
        if not any(matches(name, pattern) for name in names)
    ]


def select(names: Iterable[str], patterns: Patterns, what: str) -> list[str]:
    """The names that match, in their own order.

    Each pattern must match something: one that does not is a misspelt one. Raises UsageError for
    it, with the nearest names; `what` says what the names are of (`normalization layers`).
    """
    names = list(names)
    wrong = unmatched(names, patterns) if split_patterns(patterns) else [""]
    if wrong:
        close = nearest(wrong[0], names)
        such = f"nearest: {close}" if close else f"such as {', '.join(names[:3])}"
        raise UsageError(
            f"--layers {wrong[0]!r} matches none of the {len(names)} {what} ({such}); globs like "
            "'blocks.*' work"
        )
    return [name for name in names if matches(name, patterns)]

"""Layers by name: what `layers=` and `--layers` mean, wherever they stand.

A pattern is a glob over module paths (`blocks.*.norm1`) or a whole name; several are joined by
commas, or given as a list. `*` crosses dots, as module paths have no folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

Patterns = str | Sequence[str]


def split_patterns(patterns: Patterns) -> list[str]:
    """The single patterns of `a,b` or of `["a", "b,c"]`, without blanks around them."""
    given = [patterns] if isinstance(patterns, str) else patterns
    return [pattern for some in given for part in some.split(",") if (pattern := part.strip())]


def matches(name: str, patterns: Patterns) -> bool:
    """Does the name of a layer match one of the patterns?

    A whole name matches itself even where it holds characters that globs read otherwise (`a[0]`).
    """
    return any(name == one or fnmatchcase(name, one) for one in split_patterns(patterns))


def unmatched(names: Iterable[str], patterns: Patterns) -> list[str]:
    """The patterns that match none of the names."""
    known = list(names)
    return [
        one for one in split_patterns(patterns) if not any(matches(name, one) for name in known)
    ]

"""Layers by name: what `layers=` and `--layers` mean, wherever they stand.

A pattern is a glob over module paths (`blocks.*.norm1`) or a whole name; several are joined by
commas, or given as a list. `*` crosses dots, as module paths have no folders. A pattern behind an
exclamation mark takes layers away again: `blocks.*,!*.norm2`; where all patterns do, they take
from all layers: `!head*`. The order does not matter: what is taken away stays away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

Patterns = str | Sequence[str]

NOT = "!"


def split_patterns(patterns: Patterns) -> list[str]:
    """The single patterns of `a,b` or of `["a", "b,c"]`, without blanks around them."""
    given = [patterns] if isinstance(patterns, str) else patterns
    return [pattern for some in given for part in some.split(",") if (pattern := part.strip())]


def matches(name: str, patterns: Patterns) -> bool:
    """Does the name of a layer match one of the patterns, and none that takes layers away?

    A whole name matches itself even where it holds characters that globs read otherwise (`a[0]`).
    """
    single = split_patterns(patterns)
    wanted = [pattern for pattern in single if not pattern.startswith(NOT)]
    unwanted = [_bare(pattern) for pattern in single if pattern.startswith(NOT)]
    chosen = any(_fits(name, pattern) for pattern in wanted) or bool(unwanted and not wanted)
    return chosen and not any(_fits(name, pattern) for pattern in unwanted)


def unmatched(names: Iterable[str], patterns: Patterns) -> list[str]:
    """The patterns that fit none of the names, those that take layers away among them."""
    known = list(names)
    return [
        pattern
        for pattern in split_patterns(patterns)
        if not any(_fits(name, _bare(pattern)) for name in known)
    ]


def chooses_all(patterns: Patterns) -> bool:
    """Is every layer chosen, whatever its name?"""
    single = split_patterns(patterns)
    return "*" in single and not any(pattern.startswith(NOT) for pattern in single)


def _bare(pattern: str) -> str:
    return pattern.removeprefix(NOT).strip()


def _fits(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)

"""Layers by name: what `layers=` and `--layers` mean, wherever they stand.

A pattern is a glob over module paths (`blocks.*.norm1`) or a whole name; several are joined by
commas, or given as a list. `*` crosses dots, as module paths have no folders. A module that one
forward pass calls several times is the layers `path#1`, `path#2`, ...: a pattern of the path means
all of them. A pattern behind an exclamation mark takes layers away: `blocks.*,!*.norm2`; where all
patterns do, they take from all layers: `!head*`. The order does not matter: what is taken away
stays away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from probe.errors import UsageError, nearest

Patterns = str | Sequence[str]

NOT = "!"


def split_patterns(patterns: Patterns) -> list[str]:
    """The single patterns of `a,b` or of `["a", "b,c"]`, without blanks around them."""
    parts = [patterns] if isinstance(patterns, str) else patterns
    return [pattern for part in parts for each in part.split(",") if (pattern := each.strip())]


def matches(name: str, patterns: Patterns) -> bool:
    """Does the name of a layer match one of the patterns, and none that takes layers away?

    A whole name matches itself even where it holds characters that globs read otherwise (`a[0]`).
    """
    single = split_patterns(patterns)
    wanted = [pattern for pattern in single if not pattern.startswith(NOT)]
    unwanted = [pattern for pattern in single if pattern.startswith(NOT)]
    if not wanted and not unwanted:
        return False
    chosen = not wanted or any(_fits(name, pattern) for pattern in wanted)
    return chosen and not any(_fits(name, pattern) for pattern in unwanted)


def unmatched(names: Iterable[str], patterns: Patterns) -> list[str]:
    """The patterns that fit none of the names, those that take layers away among them."""
    names = list(names)
    return [
        pattern
        for pattern in split_patterns(patterns)
        if not any(_fits(name, pattern) for name in names)
    ]


def select(names: Iterable[str], patterns: Patterns, what: str) -> list[str]:
    """The names that match, in their own order.

    Each pattern must match something: one that does not is a misspelt one. Raises UsageError for
    it, with the nearest names, and where nothing is left; `what` says what the names are of
    (`normalization layers`).
    """
    names = list(names)
    wrong = unmatched(names, patterns) if split_patterns(patterns) else [""]
    if wrong:
        close = nearest(wrong[0].removeprefix(NOT), names)
        such = f"nearest: {close}" if close else f"such as {', '.join(names[:3])}"
        raise UsageError(
            f"--layers {wrong[0]!r} matches none of the {len(names)} {what} ({such}); globs like "
            "'blocks.*' work"
        )
    selected = [name for name in names if matches(name, patterns)]
    if names and not selected:
        shown = ",".join(split_patterns(patterns))
        raise UsageError(f"--layers {shown!r} takes away every one of the {len(names)} {what}")
    return selected


def chooses_all(patterns: Patterns) -> bool:
    """Is every layer chosen, whatever its name?"""
    single = split_patterns(patterns)
    return "*" in single and not any(pattern.startswith(NOT) for pattern in single)


def _fits(name: str, pattern: str) -> bool:
    """Does a pattern, with or without its exclamation mark, mean this layer?"""
    glob = pattern.removeprefix(NOT).strip()
    return any(each == glob or fnmatchcase(each, glob) for each in (name, name.partition("#")[0]))

"""Which results of a run need not be made again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from probe.store.files import Unsound, check_content
from probe.store.listing import Entries, listed, stale
from probe.store.manifest import read_manifest


def are_sound(folder: Path, names: Iterable[str]) -> bool:
    """Are all these results of a run there, as its list says, and of what the run holds now?"""
    entries = listed(read_manifest(folder))
    outdated = {name for name, _ in stale(entries)}
    return all(name not in outdated and _is_sound(folder, name, entries) for name in names)


def _is_sound(folder: Path, name: str, entries: Entries) -> bool:
    if name not in entries:
        return False
    try:
        check_content(folder, name, entries[name])
    except Unsound:
        return False
    return True


__all__ = ["are_sound"]

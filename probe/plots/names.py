"""Short layer names for narrow panels: still unique, still in the words of the model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from probe.formatting import visible

_SEGMENT = re.compile(
    r"^(.*?)(\d*(?:#\d+)?)$"
)  # letters, then the running number that must survive
_DOLLAR = re.compile(r"(?<!\\)\$")


def as_drawn(text: str) -> str:
    """`text` in which matplotlib reads no formula and meets no control character. Names come from
    files and may hold anything; what was made drawable once stays as it is.
    """
    return _DOLLAR.sub(r"\\$", visible(text))


def short_names(names: Sequence[str], width: int = 16) -> dict[str, str]:
    """Name -> at most about `width` characters: the common head goes, then long words are cut; two
    names never become one.
    """
    paths = {name: visible(name).split(".") for name in dict.fromkeys(names)}
    head = _common_head(list(paths.values()))
    for letters in (99, 8, 6, 5, 4, 3, 2, 1):
        short = {
            name: ".".join(_cut(word, letters) for word in path[head:])
            for name, path in paths.items()
        }
        if max(map(len, short.values()), default=0) <= width:
            break
    taken: dict[str, int] = {}
    for text in short.values():
        taken[text] = taken.get(text, 0) + 1
    return {
        name: as_drawn(_clip(text if taken[text] == 1 else visible(name), width))
        for name, text in short.items()
    }


def _common_head(paths: list[list[str]]) -> int:
    """Number of leading words that all paths share; the last word always stays."""
    if len(paths) < 2:
        return 0
    head = 0
    while all(len(path) > head + 1 for path in paths) and len({path[head] for path in paths}) == 1:
        head += 1
    return head


def _cut(word: str, letters: int) -> str:
    match = _SEGMENT.match(word)
    assert match is not None  # both groups may be empty
    return match[1][:letters] + match[2]


def _clip(text: str, width: int) -> str:
    """The end tells layers apart, so the beginning is what goes."""
    return text if len(text) <= width else "\u2026" + text[-(width - 1) :]

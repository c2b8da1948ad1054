"""Short layer names for narrow panels: still unique, still in the words of the model.

What says least goes first, and only as far as the room asks for it:

    encoder.layer.1.attention.output.LayerNorm    as the model has it
    1.attention.output.LayerNorm                  words that do not tell layers apart
    1.attn.output.ln                              the field's abbreviations
    1.att.out.ln                                  letters of the longest words
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise

from probe.formatting import visible

Path = tuple[str, ...]

# letters, then the running number that must survive
_SEGMENT = re.compile(r"^(.*?)(\d*(?:#\d+)?)$")
_ABBREVIATIONS = {
    "attention": "attn",
    "batchnorm": "bn",
    "batch_norm": "bn",
    "classifier": "cls",
    "convolution": "conv",
    "decoder": "dec",
    "downsample": "down",
    "embedding": "embed",
    "embeddings": "embed",
    "encoder": "enc",
    "features": "feat",
    "groupnorm": "gn",
    "group_norm": "gn",
    "intermediate": "inter",
    "_model": "",
    "layernorm": "ln",
    "layrnorm": "ln",  # so it stands in the CLIP of transformers
    "layer_norm": "ln",
    "layer_scale": "ls",
    "normalization": "norm",
    "projection": "proj",
}
_LONG = re.compile("|".join(sorted(_ABBREVIATIONS, key=len, reverse=True)), re.IGNORECASE)


_DOLLAR = re.compile(r"(?<!\\)\$")


def as_drawn(text: str) -> str:
    """`text` in which matplotlib reads no formula and meets no control character. Names come from
    files and may hold anything; what was made drawable once stays as it is.
    """
    return _DOLLAR.sub(r"\\$", visible(text))


def short_names(names: Sequence[str], width: int = 16) -> dict[str, str]:
    """Name -> at most `width` characters. Names that fit stay whole; two names become one only
    where the width holds no two.
    """
    every = list(dict.fromkeys(names))
    paths: list[Path] = [tuple(visible(name).split(".")) for name in every]
    for shorter in _STEPS:
        if _widest(paths) <= width:
            break
        paths = _if_distinct(shorter, paths)
    texts = [_fitted(path, width) for path in paths]
    return {
        name: as_drawn(text if texts.count(text) == 1 else _clip(".".join(path), width))
        for name, path, text in zip(every, paths, texts, strict=True)
    }


def _widest(paths: Iterable[Path]) -> int:
    return max((len(".".join(path)) for path in paths), default=0)


def _if_distinct(shorter: Callable[[list[Path]], list[Path]], paths: list[Path]) -> list[Path]:
    changed = shorter(paths)
    return changed if len(set(changed)) == len(paths) and all(changed) else paths


def _without_common_head(paths: list[Path]) -> list[Path]:
    """Leading words that all share; the last word of each always stays."""
    while len(paths) > 1 and all(len(p) > 1 for p in paths) and len({p[0] for p in paths}) == 1:
        paths = [path[1:] for path in paths]
    return paths


def _without_common_tail(paths: list[Path]) -> list[Path]:
    """`0.norm`, `1.norm` are `0`, `1`."""
    return [path[::-1] for path in _without_common_head([path[::-1] for path in paths])]


def _below(paths: Iterable[Path]) -> dict[Path, set[str]]:
    """The words that follow each beginning of a path."""
    below: dict[Path, set[str]] = {}
    for path in paths:
        for depth, word in enumerate(path):
            below.setdefault(path[:depth], set()).add(word)
    return below


def _without_containers(paths: list[Path]) -> list[Path]:
    """Words that hold numbered blocks, as `blocks` of `blocks.3.norm`, and then what held them, as
    `encoder` of `encoder.layer.3.norm`; not one of two, as `text` beside `vision`.
    """
    before: list[Path] = []
    while paths != before:
        before = paths
        alone = _lonely(start for path in paths for start in _holders(path, _lists(paths)))
        for word in dict.fromkeys(start[-1] for start in sorted(alone)):
            paths = _if_distinct(partial(_without_holder, word=word, alone=alone), paths)
    return paths


def _lists(paths: list[Path]) -> set[str]:
    """Words with several numbers below one of them: `blocks`, but not the `downsample` of
    `downsample.1`.
    """
    return {
        start[-1]
        for start, words in _below(paths).items()
        if start and sum(bool(_split(word)[1]) for word in words) > 1
    }


def _holders(path: Path, lists: set[str]) -> list[Path]:
    """The beginnings of `path` that end where a numbered block follows."""
    return [
        path[: at + 1]
        for at, (word, number) in enumerate(pairwise(path))
        if _split(number)[1]
        and not _split(word)[1]
        and (at + 2 < len(path) or (word in lists and number.isdigit()))
    ]


def _lonely(starts: Iterable[Path]) -> set[Path]:
    """Those of `starts` that differ from all others before their last word."""
    beside: dict[Path, set[Path]] = {}
    for start in starts:
        beside.setdefault(start[:-1], set()).add(start)
    return {start for group in beside.values() if len(group) == 1 for start in group}


def _without_holder(paths: list[Path], word: str, alone: set[Path]) -> list[Path]:
    return [
        tuple(w for at, w in enumerate(path) if w != word or path[: at + 1] not in alone)
        for path in paths
    ]


def _abbreviated(paths: list[Path]) -> list[Path]:
    return [
        tuple(_LONG.sub(lambda m: _ABBREVIATIONS[m[0].lower()], word) for word in path)
        for path in paths
    ]


def _numbers_alone(paths: list[Path]) -> list[Path]:
    """`encoder_layer_3.ln_1` is `3.ln_1`, where all blocks beside it are called so."""
    below = _below(path[:-1] for path in paths)
    stems = {start: {_split(word)[0] for word in words} for start, words in below.items()}
    return [
        (
            *(
                _split(word)[1] if len(stems[path[:at]]) == 1 < len(below[path[:at]]) else word
                for at, word in enumerate(path[:-1])
            ),
            path[-1],
        )
        for path in paths
    ]


def _fitted(path: Path, width: int) -> str:
    """The longest words lose letters until the name fits; numbers stay. The model itself has no
    name.
    """
    text = ".".join(path)
    for letters in range(max(map(len, path)), 0, -1):
        text = ".".join(_cut(word, letters) for word in path)
        if len(text) <= width:
            return text
    return _clip(text, width)


def _cut(word: str, letters: int) -> str:
    stem, number = _split(word)
    return stem[:letters] + number


def _split(word: str) -> tuple[str, str]:
    """Letters and running number of a word; either may be empty."""
    match = _SEGMENT.fullmatch(word)
    assert match is not None
    return match[1], match[2]


def _clip(text: str, width: int) -> str:
    """Both ends tell layers apart, so the middle is what goes."""
    end = width // 2
    return text if len(text) <= width else f"{text[: width - 1 - end]}\u2026{text[-end:]}"


_STEPS = (
    _without_common_head,
    _without_common_tail,
    _without_containers,
    _abbreviated,
    _numbers_alone,
)

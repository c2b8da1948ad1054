"""What a safetensors file of a changed network says of itself in its metadata.

Values are texts, all but plain texts JSON: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

from probe.errors import UsageError, first_line
from probe.store.journal import settle


@dataclass(frozen=True)
class Format:
    """A kind of model file: its name in the metadata, the version this code writes, how people call
    it, what is JSON in it.
    """

    name: str
    version: int
    called: str  # "converted"
    json: Sequence[str]


def metadata_of(path: Path) -> Mapping[str, str]:
    """The texts in a safetensors file. Raises OSError, SafetensorError."""
    settle(path.parent)
    with safetensors.safe_open(path, "np") as file:
        return file.metadata() or {}


def read_metadata(path: Path, kind: Format) -> dict[str, Any]:
    """The metadata of a file of this kind, its JSON read. Raises UsageError for any other file."""
    try:
        texts = metadata_of(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UsageError(
            f"{path} cannot be read as a {kind.called} model ({first_line(error)})"
        ) from None
    if texts.get("format") != kind.name:
        raise UsageError(
            f"{path} is no {kind.called} model: its format is {texts.get('format')!r}, not "
            f"{kind.name!r}"
        )
    version = texts.get("version", "")
    if not version.isdecimal() or int(version[:9]) > kind.version:
        shown = version[:9] if version.isdecimal() else "that is no number"
        raise UsageError(
            f"{path} has version {shown}; this version reads up to {kind.version}: "
            "update probe-norms"
        )
    for key in ("model", "origin"):
        if key not in texts:
            raise UsageError(f"{path} is damaged: its metadata holds no {key}")
    return {**texts, **{key: _json(texts, key, path) for key in kind.json}}


def _json(texts: Mapping[str, str], key: str, path: Path) -> dict[str, Any] | list[Any]:
    """A mapping or a list in the metadata. Raises UsageError for anything else."""
    try:
        value = json.loads(texts[key])
    except (KeyError, ValueError, RecursionError):
        raise UsageError(f"{path} is damaged: its metadata holds no {key} as JSON") from None
    if not isinstance(value, dict | list):
        raise UsageError(f"{path} is damaged: {key} in its metadata is no mapping and no list")
    return value

"""Paths and addresses as a user writes them."""

from __future__ import annotations

import os
from pathlib import Path

from probe.errors import UsageError
from probe.formatting import visible


def is_address(path: object) -> bool:
    """Is this the address of a place in some storage (`s3://BUCKET/FOLDER`), not a path?"""
    return isinstance(path, str) and "://" in path


def user_path(path: str | os.PathLike[str]) -> Path:
    """`path` with `~` and `~NAME` expanded. Raises UsageError for a name that no user has, and for
    a NUL, which no path can hold.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise UsageError(f"path {visible(text)}: cannot be opened, it holds a NUL character")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        name = text.replace("\\", "/").split("/", 1)[0]
        raise UsageError(
            f"path {text}: the home folder of {name} is not known; for a folder of that name write "
            f"./{text}"
        ) from None


__all__ = ["is_address", "user_path"]

"""Folders in the system's place for temporary files that are one user's alone, for who has no other
place to keep something: what another user could write there would be trusted.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def private_folder(kind: str) -> tuple[Path, bool] | None:
    """The folder for `kind`, and whether it is a new one; None where it cannot be made, or is not
    this user's alone.
    """
    try:
        user = os.geteuid() if hasattr(os, "geteuid") else "user"
        folder = Path(tempfile.gettempdir()) / f"probe-norms-{kind}-{user}"
        new = _made(folder)
        return (folder, new) if _belongs_to_this_user(folder) else None
    except OSError:
        return None


def _made(folder: Path) -> bool:
    """Is the folder a new one?"""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return False
    return True


def _belongs_to_this_user(folder: Path) -> bool:
    status = folder.lstat()
    if not hasattr(os, "geteuid"):  # Windows: places for temporary files belong to one user
        return stat.S_ISDIR(status.st_mode)
    others = stat.S_IMODE(status.st_mode) & 0o077
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not others


__all__ = ["private_folder"]

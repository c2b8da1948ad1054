"""The manifest of a run: read and checked, and what can be said of a run from it alone."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probe.errors import ProbeError, UsageError
from probe.formatting import json_bytes
from probe.store.files import Unsound, read_inside
from probe.store.manifest_shape import shortened, wrong_shape
from probe.store.schema import FORMAT, MANIFEST, VERSION

SEAL = "checksum"  # the last field: sha256 of the file with zeros in its place
_BLANK = "0" * 64
_SEALED = re.compile(rb'"checksum": "([0-9a-f]{64})"\n}\n\Z')


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished run. Raises UsageError for a folder that holds none, that is
    unfinished or that a newer version wrote, ProbeError where it cannot be read or is damaged.
    """
    path = folder / MANIFEST
    try:
        data = read_inside(folder, MANIFEST)
    except Unsound as reason:
        if not os.path.lexists(path):
            raise UsageError(f"{folder} is no run: it holds no {MANIFEST}") from None
        raise ProbeError(f"{path} cannot be read ({reason})") from None
    return checked_manifest(data, folder)


def checked_manifest(data: bytes, folder: Path) -> dict[str, Any]:
    """The manifest of the run in `folder`, of its bytes. Raises as `read_manifest`."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError):
        raise UsageError(
            f"{folder} is no run: its {MANIFEST} is damaged or of another kind"
        ) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UsageError(f"{folder} is no run: its {MANIFEST} is of another kind")
    version = manifest.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise UsageError(
            f"{folder} has run format {shortened(version)}; this version reads up to {VERSION}: "
            "update probe-norms"
        )
    if (version > 1 or SEAL in manifest) and not _is_sealed(data):
        raise ProbeError(
            f"{path} is damaged: the content changed (its checksum differs); put back a copy, or "
            "capture the run again"
        )
    if manifest.get("status") != "finished":
        raise UsageError(
            f"{folder} is an unfinished run (status {shortened(manifest.get('status'))}): capture "
            "it again"
        )
    if problem := wrong_shape(manifest):
        raise ProbeError(f"{path} is damaged: {problem}; capture the run again")
    manifest.pop(SEAL, None)
    return manifest


def sealed(manifest: Mapping[str, Any]) -> bytes:
    """The bytes of the manifest, the checksum of all others at their end."""
    data = json_bytes({**manifest, SEAL: _BLANK})
    head, _, tail = data.rpartition(_BLANK.encode())
    return head + hashlib.sha256(data).hexdigest().encode() + tail


def _is_sealed(data: bytes) -> bool:
    match = _SEALED.search(data)
    if match is None:
        return False
    blank = data[: match.start(1)] + _BLANK.encode() + data[match.end(1) :]
    return hashlib.sha256(blank).hexdigest().encode() == match[1]


def why_no_attention(manifest: dict[str, Any]) -> str:
    """Why a run has no attention table, and what makes one."""
    record = manifest.get("attention") or {}
    if record.get("status") == "none":
        return "no attention was seen in its model"
    if record.get("status") == "unreadable":
        reasons = [f"{path}: {reason}" for path, reason in (record.get("unreadable") or {}).items()]
        return (
            "none of its model's attention can be read "
            f"({'; '.join(reasons[:3])}{'; ...' if len(reasons) > 3 else ''})"
        )
    return (
        f"it was captured without; `probe-norms attention {model_option(manifest)} --out DIR` "
        "measures it"
    )


def model_option(manifest: dict[str, Any]) -> str:
    """The option that names the model of a run again; `--model M` where it has no name."""
    model = manifest.get("model") or {}
    return (
        "--model M" if model.get("origin") in (None, "module") else f"--model {model.get('name')}"
    )

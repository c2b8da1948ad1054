"""The manifest of a run: read and checked, and what can be said of a run from it alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from probe.errors import ProbeError, UsageError
from probe.store.schema import FORMAT, MANIFEST, VERSION


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished run. Raises UsageError for a folder that holds none, that is
    unfinished or that a newer version wrote, ProbeError where it cannot be read.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{folder} is no run: it holds no {MANIFEST}") from None
    except OSError as error:
        raise ProbeError(f"{folder / MANIFEST} cannot be read ({error.strerror})") from error
    except ValueError:
        raise UsageError(
            f"{folder} is no run: its {MANIFEST} is damaged or of another kind"
        ) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UsageError(f"{folder} is no run: its {MANIFEST} is of another kind")
    version = manifest.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise UsageError(
            f"{folder} has run format {version}; this version reads up to {VERSION}: update "
            "probe-norms"
        )
    if manifest.get("status") != "finished":
        raise UsageError(
            f"{folder} is an unfinished run (status {manifest.get('status')!r}): capture it again"
        )
    return manifest


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

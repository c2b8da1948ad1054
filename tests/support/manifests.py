"""Manifests changed by hand, sealed anew as this package would have written them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probe.store.manifest import SEAL, sealed


def change_manifest(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """`change` alters the manifest in place, or returns another one."""
    path = run / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.pop(SEAL, None)
    other = change(manifest)
    path.write_bytes(sealed(other if isinstance(other, dict) else manifest))


def without_results(run: Path) -> Path:
    """The run as its capture left it."""

    def forget(manifest: dict[str, Any]) -> None:
        for name in [name for name, entry in manifest["files"].items() if "from" in entry]:
            (run / name).unlink()
            del manifest["files"][name]

    change_manifest(run, forget)
    return run

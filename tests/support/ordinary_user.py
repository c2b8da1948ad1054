"""Runs Python as a user who may write nowhere but where everyone may, without a home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import probe

NOBODY = 65534
READS_ALL = (
    "dac_read_search"  # so that an interpreter under /root can be run; it permits no writing
)


def read_only_package(folder: Path) -> Path:
    """A copy of the package in `folder`, none of which can be written."""
    source = Path(probe.__file__).parent
    shutil.copytree(source, folder / "probe", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


def python(code: str, package: Path, temporary: Path, **environment: str) -> list[str]:
    """What `code` prints, and what it logs, run without HOME from the package in `package`."""
    nowhere = package / "probe"  # a cache of the user that cannot be written
    given = {"PYTHONPATH": package, "TMPDIR": temporary, "XDG_CACHE_HOME": nowhere}
    variables = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **given, **environment}
    command = [*_as_ordinary_user(), sys.executable, "-c", code]
    result = subprocess.run(
        command,
        env={name: str(value) for name, value in variables.items()},
        cwd=temporary,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [*result.stdout.splitlines(), *result.stderr.splitlines()]


def _as_ordinary_user() -> list[str]:
    """What a command begins with, so that it does not run as root; skips the test where root cannot
    become another.
    """
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no users as Unix has them")
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("runs as root, and there is no setpriv to become another user")
    kept = f"-all,+{READS_ALL}"
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    start = ["setpriv", *user, f"--inh-caps={kept}", f"--ambient-caps={kept}"]
    if subprocess.run([*start, "true"], capture_output=True, check=False).returncode:
        pytest.skip("runs as root, and setpriv is not allowed to become another user")
    return start

"""The docstrings build to an API page without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import probe


@pytest.mark.slow
def test_the_api_page_builds_without_warnings_and_has_every_public_name(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pdoc", "probe", "-o", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
    page = (tmp_path / "probe.html").read_text()
    missing = [
        name
        for name in probe.__all__
        if name not in ("norms", "plots", "__version__") and f'id="{name}"' not in page
    ]
    assert not missing

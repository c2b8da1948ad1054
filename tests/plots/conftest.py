"""The helper module of this folder is importable from its tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """No figure function leaves a pyplot figure open, whatever the test draws."""
    before = plt.get_fignums()
    yield
    assert plt.get_fignums() == before

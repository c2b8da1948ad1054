"""What holds for every test of a figure."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """No figure function leaves a pyplot figure open, whatever the test draws."""
    before = plt.get_fignums()
    yield
    assert plt.get_fignums() == before

"""What all tests share: small plain models, and one finished run of the bundled ViT."""

from __future__ import annotations

import os
from collections import Counter

import pytest

# before torch is imported: two processes run the tests, and threads of each would wait for those of
# the other
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(config, items):
    """With several processes the files that take longest begin first, so that none of them is left
    to one process while the others have no work. In one process the order stays random.
    """
    if not hasattr(config, "workerinput"):  # what pytest-xdist gives its workers
        return
    sizes = Counter(item.path for item in items)
    marks = {path: set() for path in sizes}
    for item in items:
        marks[item.path] |= {mark.name for mark in item.iter_markers()}

    def turn(item):
        names = marks[item.path]
        return "notebook" not in names, "long" not in names, -sizes[item.path]

    items.sort(key=turn)


@pytest.fixture(scope="session")
def vit_run(tmp_path_factory):
    """A finished and fitted run of the bundled ViT on 16 bundled photographs. Read only: copy it
    before changing it.
    """
    from probe.jobs.capturing.capture import capture
    from probe.jobs.fitting.fit import fit

    run = capture(
        "bundled:vit_cifar10",
        out=tmp_path_factory.mktemp("runs") / "vit",
        num_images=16,
        samples=64,
    )
    fit(run)
    return run

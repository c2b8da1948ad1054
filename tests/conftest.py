"""What all tests share: small plain models, and one finished run of the bundled ViT."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

# before torch is imported: two processes run the tests, and threads of each would wait for those of
# the other
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PROBE_PROCESSES", "1")  # likewise; tests/jobs/test_sharing.py has two


# whole jobs, whole networks and processes of their own, marked `long`
LONG = (
    "cli/test_cli_process.py",
    "jobs",
    "models/folding/test_fold.py",
    "models/loading/test_hub.py",
    "test_api_page.py",
)


def pytest_collection_modifyitems(config, items):
    for item in items:
        if any(item.path.is_relative_to(TESTS / part) for part in LONG):
            item.add_marker(pytest.mark.long)
    if hasattr(config, "workerinput"):  # what pytest-xdist gives its processes
        longest_first(items)


def longest_first(items):
    """The files that take longest begin first, so that none of them is left to one process while
    the others have no work. Within a file the order stays random, and in one process altogether.
    """
    sizes = Counter(item.path for item in items)
    marks = {path: set() for path in sizes}
    for item in items:
        marks[item.path] |= {mark.name for mark in item.iter_markers()}

    def turn(item):
        names = marks[item.path]
        return "notebook" not in names, "long" not in names, -sizes[item.path]

    items.sort(key=turn)


@pytest.fixture(scope="session")
def vit_run(tmp_path_factory, worker_id):
    """A finished and fitted run of the bundled ViT on 16 bundled photographs. Read only: copy it
    before changing it.
    """
    from filelock import FileLock  # torch brings it

    from probe.store import open_run

    folder = tmp_path_factory.getbasetemp()
    if worker_id != "master":  # the folder that all processes of this session have in common
        folder = folder.parent
    with FileLock(folder / "vit.lock"):  # whoever comes first makes it
        if not (folder / "vit.made").exists():
            make_vit_run(folder / "vit")
            (folder / "vit.made").touch()
    return open_run(folder / "vit")


def make_vit_run(out):
    from probe.jobs.capturing.capture import capture
    from probe.jobs.fitting.fit import fit

    fit(capture("bundled:vit_cifar10", out=out, num_images=16, samples=64))

"""What all tests share: small plain models, and one finished run of the bundled ViT."""

from __future__ import annotations

import os

import pytest

# before torch is imported: two processes run the tests, and threads of each would wait for those of
# the other
os.environ.setdefault("OMP_NUM_THREADS", "1")


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

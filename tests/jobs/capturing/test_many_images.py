"""Where images are many, the manifest holds their number, and a table their names; plans are
functions of the number of a batch.
"""

from __future__ import annotations

import numpy as np
import pytest

from probe.data import cut_batches, open_images
from probe.jobs.capturing import manifest, write_run
from probe.jobs.fitting.fit import image_groups
from probe.store import open_run, verify_run
from support.interrupted import job, write_images


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same capture with the names in the manifest, and in a table."""
    folder = tmp_path_factory.mktemp("many")
    images = write_images(folder / "images")
    usual = job(images, folder / "usual")
    with pytest.MonkeyPatch.context() as patch:
        for module in (manifest, write_run):
            patch.setattr(module, "LISTED", 25)
        return usual, job(images, folder / "many")


def test_a_table_has_the_names_and_the_manifest_their_number(runs):
    usual, many = (run.manifest["data"] for run in runs)
    assert many["images"] == 26
    assert "groups" not in many
    assert many["identity"] == usual["identity"]
    table = open_run(runs[1].path).images()
    assert list(table["name"]) == usual["images"]
    assert list(table["group"]) == usual["groups"]
    assert "images.parquet" in runs[1].manifest["files"]
    assert "images.parquet" not in runs[0].manifest["files"]


def test_both_kinds_of_run_tell_the_same_of_their_images(runs):
    usual, many = runs
    assert verify_run(many) == []
    assert usual.images().equals(many.images().astype(usual.images().dtypes))
    numbers = np.arange(26)
    np.testing.assert_array_equal(image_groups(many)(numbers), image_groups(usual)(numbers))


def test_images_are_found_wherever_a_worker_stands(tmp_path, monkeypatch):
    write_images(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    source = open_images("images")
    monkeypatch.chdir("/")
    assert source.load(0).size == (8, 12)


def test_the_cut_into_batches_keeps_no_list():
    cut = cut_batches(10**9 + 3, 64, first=10)
    assert len(cut) == 15_625_000 + 1 - 10
    assert cut[0].tolist() == list(range(640, 704))
    assert cut[len(cut) - 1].tolist() == [10**9, 10**9 + 1, 10**9 + 2]
    with pytest.raises(IndexError):
        cut[len(cut)]

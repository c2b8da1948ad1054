"""A capture whose workers live in other processes is the capture of this process: the same rows,
sums to rounding; and the same bytes for any number of workers, in whatever order they end.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
import pandas as pd
import pytest

from probe.engines import ENGINES
from probe.errors import ProbeError, UsageError
from probe.jobs.capturing import capture as capture_job
from probe.jobs.capturing.attention import attention_distance
from probe.jobs.capturing.capture import capture
from probe.jobs.capturing.shares import share_size
from probe.store import verify_run
from support.captures import Everything, token_batches
from support.interrupted import (
    GRID,
    BrokenOff,
    Restless,
    break_off,
    contents,
    job,
    state_after_each_batch,
    tokens,
    write_images,
)
from support.pools import here

SUMS = ("moments", "profile", "rows", "attention")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("elsewhere") / "images")


@pytest.fixture(scope="module")
def local(images, tmp_path_factory):
    return job(images, tmp_path_factory.mktemp("local") / "run")


@pytest.fixture
def engine(monkeypatch):
    """Name of an engine that is made anew by calling it."""

    def made(**options):
        monkeypatch.setitem(ENGINES, "here", here(**options))
        return "here"

    return made


@pytest.fixture(scope="module")
def elsewhere(images, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, "here", here())
        return contents(job(images, tmp_path_factory.mktemp("elsewhere") / "run", engine="here"))


def assert_same_run(run, expected):
    """Rows to the byte, sums to rounding."""
    for path in sorted((expected.path / "samples").iterdir()):
        assert (run.path / "samples" / path.name).read_bytes() == path.read_bytes(), path.name
    for table in SUMS:
        left, right = getattr(run, table)(), getattr(expected, table)()
        pd.testing.assert_frame_equal(left, right, rtol=1e-11, atol=1e-11)
    pd.testing.assert_frame_equal(run.layers, expected.layers, rtol=1e-12)
    assert run.manifest["data"] == expected.manifest["data"]
    for entry in ("attention", "not_captured", "images_seen"):
        assert run.manifest[entry] == expected.manifest[entry]
    assert verify_run(run) == verify_run(expected) == []


def test_it_is_the_capture_of_this_process(images, local, engine, tmp_path):
    run = job(images, tmp_path / "run", engine=engine(seed=1, lost=[0, 3]), workers=3)
    assert_same_run(run, local)
    assert run.manifest["model"]["device"] == "cpu"
    assert run.manifest["plan"] == local.manifest["plan"] | {"engine": "here"}


@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_workers_gives_the_same_bytes(workers, images, elsewhere, engine, tmp_path):
    name = engine(seed=workers, lost=[workers])
    assert contents(job(images, tmp_path / "run", engine=name, workers=workers)) == elsewhere


def test_one_that_was_broken_off_goes_on_to_the_same_bytes(
    images, elsewhere, engine, tmp_path, monkeypatch
):
    state_after_each_batch(monkeypatch)
    for seed, done in enumerate((4, 13, 20)):
        with pytest.raises(BrokenOff):
            options = {"engine": engine(seed=seed), "workers": 3, "resume": True}
            job(images, tmp_path / "run", progress=break_off(done), **options)
        assert not (tmp_path / "run").exists()
    started = here()
    monkeypatch.setitem(ENGINES, "here", started)
    assert contents(job(images, tmp_path / "run", engine="here", resume=True)) == elsewhere
    assert len(started.open_pool.pools[0].started) < 4  # of nine


def test_batches_of_an_iterable_travel_with_their_share(engine, tmp_path):
    batches = token_batches(images=36, size=3, positions=12)
    options = {**GRID, "samples": 40, "tail": 80, "attention": True}
    expected = capture(Everything(), iter(batches), out=tmp_path / "local", **options)
    name = engine(seed=2, lost=[1])
    run = capture(Everything(), iter(batches), out=tmp_path / "run", engine=name, **options)
    assert_same_run(run, expected)


def test_attention_alone_is_read_elsewhere_too(images, engine, local, tmp_path):
    table = attention_distance(
        Everything(), images, transform=tokens, batch_size=3, engine=engine(), workers=2, **GRID
    )
    expected = local.attention()
    np.testing.assert_allclose(table["distance_px"], expected["distance_px"], rtol=1e-12)
    np.testing.assert_allclose(table["distance_px_std"], expected["distance_px_std"], rtol=1e-12)


def test_images_that_cannot_be_used_are_told_as_in_this_process(engine, tmp_path):
    (tmp_path / "images").mkdir()
    for name in "abcd":
        (tmp_path / "images" / f"{name}.png").write_text("no image")
    lines = []
    for options in ({}, {"engine": engine(seed=3), "workers": 4}):
        with pytest.raises(ProbeError) as caught:
            job(tmp_path / "images", tmp_path / "run", batch_size=1, **options)
        lines.append(str(caught.value))
    assert lines[0] == lines[1]


def test_a_model_in_train_mode_is_refused(images, engine, tmp_path):
    with pytest.raises(UsageError, match="train mode, so that a batch depends on those before it"):
        job(images, tmp_path / "run", Restless(), engine=engine())


def test_a_share_that_never_came_back_ends_the_job(images, engine, tmp_path, monkeypatch):
    """What the engine says is not trusted: images and skipped ones are counted."""
    cut = capture_job.shares_of

    def one_less(stream):
        shares = cut(stream)
        monkeypatch.setattr(type(shares), "shares", lambda self: iter([range(2), range(2, 4)]))
        return shares

    monkeypatch.setattr(capture_job, "shares_of", one_less)
    with pytest.raises(ProbeError, match="12 of the 26 planned images were seen"):
        job(images, tmp_path / "run", engine=engine())


class Unpicklable(Everything):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()  # what cannot travel


@pytest.mark.parametrize("name", ["processes", "ray"])
def test_a_model_that_cannot_travel_is_told_in_one_line(name, images, tmp_path):
    if name == "ray":
        pytest.importorskip("ray")
    with pytest.raises(UsageError) as caught:
        job(images, tmp_path / "run", Unpicklable(), engine=name)
    assert str(caught.value).startswith("the model, its transform or the mask cannot be sent to")
    assert "\n" not in str(caught.value)


def test_without_ray_its_engine_says_what_to_install(images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"^--engine ray needs the package `ray`: "):
        job(images, tmp_path / "run", engine="ray")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "127.0.0.1:99999"])
def test_a_wrong_address_is_told_within_seconds(address, images, tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match=f"^--address {address}: no Ray cluster answers there"):
        job(images, tmp_path / "run", engine="ray", address=address)


def test_the_size_of_shares_is_a_function_of_the_plan():
    assert [share_size(n) for n in (0, 1, 16, 64, 6400, 160_000)] == [1, 1, 1, 2, 64, 64]
    assert share_size(10**9) * 8192 >= 10**9


def test_the_state_is_plain_arrays(images, engine, tmp_path, monkeypatch):
    state_after_each_batch(monkeypatch)
    with pytest.raises(BrokenOff):
        job(images, tmp_path / "run", engine=engine(), progress=break_off(11))
    with np.load(tmp_path / ".run.checkpoint" / "state.npz", allow_pickle=False) as state:
        assert all(state[name].dtype != object for name in state.files)

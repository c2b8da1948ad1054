"""Workers in processes of their own: of this machine, and Ray's."""

from __future__ import annotations

from functools import partial

import pytest

from probe.engines import Means, find_engine
from probe.engines.ray import cpus_each
from probe.errors import ProbeError
from support.interrupted import contents, job, write_images
from support.pools import Collector, DeadlyTokens, Numbers, here

# Ray leaves sockets and files to the end of the process
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def cluster():
    """Ray on two cores of this machine, for all tests of this file."""
    ray = pytest.importorskip("ray")
    from probe.engines.ray import connected

    with connected("local"):
        yield ray


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("processes") / "images")


@pytest.fixture(scope="module")
def expected(images, tmp_path_factory):
    """The capture by an engine like these, without processes."""
    with pytest.MonkeyPatch.context() as patch:
        from probe.engines import ENGINES

        patch.setitem(ENGINES, "ray", here())
        return contents(job(images, tmp_path_factory.mktemp("here") / "run", engine="ray"))


def collected(name, workers, *options):
    reported = []
    engine = find_engine(name, Means(workers))
    worker = engine(partial(Collector, *options), Numbers(12), reported.append)
    assert reported == ["read"] * 6
    return worker.batches


def test_a_ray_worker_works_on_every_batch_once(monkeypatch):
    """The smallest cluster, started and ended by the engine: the others are slow."""
    pytest.importorskip("ray")
    monkeypatch.setattr("probe.engines.ray.usable_cores", lambda: 1)
    try:
        assert collected("ray", 1) == list(range(12))
    except ProbeError as error:  # Ray gives itself half a minute, which a loaded machine may not
        if "Ray did not start" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_ray_workers_makes_the_same_bytes(
    workers, cluster, images, expected, tmp_path
):
    assert contents(job(images, tmp_path / "run", engine="ray", workers=workers)) == expected


@pytest.mark.slow
def test_processes_of_this_machine_make_the_same_run(images, expected, tmp_path):
    run = contents(job(images, tmp_path / "run", engine="processes", workers=2))
    assert {name for name in expected if expected[name] != run[name]} == {"manifest"}
    assert run["manifest"] == expected["manifest"].replace(b"'ray'", b"'processes'")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["processes", "ray"])
def test_a_killed_worker_loses_no_batch_and_counts_none_twice(name, request, tmp_path):
    if name == "ray":
        request.getfixturevalue("cluster")
    assert collected(name, 2, tmp_path / "flag", 5) == list(range(12))
    assert (tmp_path / "flag").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["processes", "ray"])
def test_a_capture_whose_worker_is_killed_midway_is_the_same_run(
    name, request, images, expected, tmp_path
):
    if name == "ray":
        request.getfixturevalue("cluster")
    deadly = DeadlyTokens(tmp_path / "flag", after=5)
    run = contents(job(images, tmp_path / "run", engine=name, workers=2, transform=deadly))
    assert (tmp_path / "flag").exists()
    assert {file for file in expected if expected[file] != run[file]} <= {"manifest"}


@pytest.mark.slow
def test_a_worker_that_always_dies_ends_the_job_in_one_line():
    with pytest.raises(ProbeError, match="^two worker processes died"):
        collected("processes", 1, None, 5)


@pytest.mark.parametrize(
    ("nodes", "count", "cpus"),
    [([2], 2, 1), ([16], 2, 8), ([16, 16], 4, 8), ([8, 2], 3, 2), ([2], 4, 0.5), ([4, 4], 3, 2)],
)
def test_actors_get_as_many_cores_as_fit_on_the_machines(nodes, count, cpus):
    assert cpus_each(nodes, count) == cpus

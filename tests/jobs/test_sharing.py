"""Work on a run in two processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from probe.jobs import sharing
from probe.jobs.sharing import second_process, shared


@pytest.fixture(autouse=True)
def two_processes(monkeypatch):
    monkeypatch.setattr(sharing, "processes", lambda: 2)


def started():
    """Wait until the second process takes work."""
    assert sharing._running.get()._ready.wait(30)
    assert not sharing._running.get()._lost


def whoever_is_free(folder, item):
    """The process that worked; the first one waits until the other has come to work, too."""
    (folder / str(os.getpid())).touch()
    until = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    return os.getpid(), item


def test_both_processes_work_and_results_keep_their_order(tmp_path):
    with second_process():
        started()
        results = shared(partial(whoever_is_free, tmp_path), list(range(12)))
    assert [item for _, item in results] == list(range(12))
    assert {pid for pid, _ in results} == {int(path.name) for path in tmp_path.iterdir()}
    assert os.getpid() in {pid for pid, _ in results}


def alone(item):
    return os.getpid(), item


def test_without_a_second_process_this_one_does_it_all():
    assert [pid for pid, _ in shared(alone, [1, 2])] == [os.getpid()] * 2


def test_one_process_where_the_user_says_so(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("PROBE_PROCESSES", "1")
    with second_process():
        assert sharing._running.get() is None


def fails_elsewhere(here, folder, item):
    pid, item = whoever_is_free(folder, item)
    if pid != here:
        raise ValueError("only there")
    return item


def test_what_fails_in_the_second_process_is_done_in_the_first(tmp_path):
    with second_process():
        started()
        job = partial(fails_elsewhere, os.getpid(), tmp_path)
        assert shared(job, list(range(6))) == list(range(6))
    assert len(list(tmp_path.iterdir())) == 2


def fails(item):
    raise ValueError(f"item {item}")


def test_an_error_is_raised_here():
    with second_process(), pytest.raises(ValueError, match="item"):
        started()
        shared(fails, [1, 2, 3])


def dies_elsewhere(here, folder, item):
    pid, item = whoever_is_free(folder, item)
    if pid != here:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_second_process_that_is_killed_costs_no_result(tmp_path):
    with second_process():
        started()
        job = partial(dies_elsewhere, os.getpid(), tmp_path)
        assert shared(job, list(range(6))) == list(range(6))
        assert len(list(tmp_path.iterdir())) == 2
        assert shared(job, [7, 8]) == [7, 8]  # and nothing waits for it


def test_a_second_process_that_cannot_start_costs_no_result(monkeypatch):
    monkeypatch.setattr(sharing.sys, "executable", "/no/such/python")
    with second_process():
        assert shared(alone, [3])[0][1] == 3


def prints(folder, item):
    sys.stdout.write("noise")
    os.write(1, b"noise")
    return whoever_is_free(folder, item)[1]


def test_what_a_library_prints_in_the_second_process_is_no_result(tmp_path, capfd):
    with second_process():
        started()
        assert shared(partial(prints, tmp_path), list(range(8))) == list(range(8))
        assert not sharing._running.get()._lost
    assert len(list(tmp_path.iterdir())) == 2


def test_the_second_process_ends_with_the_block():
    with second_process():
        started()
        process = sharing._running.get()._process
    assert process.poll() is not None


KILLED = """
import os, signal
from probe.jobs import sharing

sharing.processes = lambda: 2
with sharing.second_process("time"):
    print(sharing._running.get()._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_second_process_ends_without_a_word_when_the_first_is_killed():
    ended = subprocess.run(
        [sys.executable, "-c", KILLED], capture_output=True, text=True, check=False
    )  # both pipes end with the second process
    assert ended.returncode == -signal.SIGKILL
    assert int(ended.stdout) > 0
    assert ended.stderr == ""


def test_a_job_that_ends_before_the_second_process_has_started_does_not_wait_for_it():
    with second_process("time"):
        second = sharing._running.get()
        second._ready = threading.Event()  # never
        assert shared(alone, [1, 2])[1] == (os.getpid(), 2)


def test_progress_counts_finished_items_up_to_all():
    told = []
    shared(alone, [1, 2, 3], told.append)
    assert told == [0, 1, 2, 3]


def test_blocks_inside_of_each_other_share_one_process():
    with second_process():
        outer = sharing._running.get()
        with second_process():
            assert sharing._running.get() is outer
        assert outer._process.poll() is None


@pytest.mark.slow
def test_two_processes_fit_and_draw_the_same_bytes_as_one(vit_run, tmp_path, monkeypatch):
    from probe.jobs.drawing.draw import plot
    from probe.jobs.fitting.fit import fit
    from probe.jobs.reporting.report import report

    drawn = ["alpha_vs_inverse_std", "families", "extremes"]

    one, two = (Path(shutil.copytree(vit_run.path, tmp_path / name / "run")) for name in ("a", "b"))
    monkeypatch.setattr(sharing, "processes", lambda: 1)
    fit(one)
    plot(one, drawn)
    report(one)
    monkeypatch.setattr(sharing, "processes", lambda: 2)
    with second_process("probe.jobs.fitting.fit", "probe.jobs.reporting.report"):
        started()
        fit(two)
        assert len(plot(two, drawn)) == 6
        report(two)
    for name in ("fits.parquet", "channel_fits.parquet", "alpha.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    for path in (one / "figures").iterdir():
        assert path.read_bytes() == (two / "figures" / path.name).read_bytes(), path.name
    assert (one / "report.html").read_bytes() == (two / "report.html").read_bytes()

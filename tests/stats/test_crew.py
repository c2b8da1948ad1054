"""Threads that work together with the one that asks."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from probe.stats.crew import Crew, crew, current_core, one_core_each


def test_everyone_works() -> None:
    meeting, workers = threading.Barrier(3, timeout=30), set()

    def work() -> None:
        meeting.wait()  # nobody goes on before three are there
        workers.add(threading.get_ident())

    Crew(2).together(work)
    assert len(workers) == 3
    assert threading.get_ident() in workers


def test_without_helpers_the_work_is_done_here() -> None:
    workers: list[int] = []
    Crew(0).together(lambda: workers.append(threading.get_ident()))
    assert workers == [threading.get_ident()]


def test_helpers_and_who_works_with_them_keep_operations_of_torch_on_one_core() -> None:
    asking, before = threading.get_ident(), torch.get_num_threads()

    def cores(helpers: Crew) -> tuple[int, list[int]]:
        """Of this thread, of the three helpers."""
        meeting, by_thread = threading.Barrier(4, timeout=30), {}

        def work() -> None:
            meeting.wait()
            by_thread[threading.get_ident()] = torch.get_num_threads()

        helpers.together(work)
        return by_thread.pop(asking), list(by_thread.values())

    torch.set_num_threads(3)
    try:
        helpers = Crew(3)
        assert cores(helpers) == (3, [1, 1, 1])
        with one_core_each() as threads:
            assert threads == 3
            assert cores(helpers) == (1, [1, 1, 1])
        assert cores(helpers) == (3, [1, 1, 1])
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="nobody chooses cores here")
def test_helpers_keep_off_the_core_of_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed, helpers = os.sched_getaffinity(0), Crew(2)

    def of_helpers() -> list[set[int]]:
        meeting, asking, cores = threading.Barrier(3, timeout=30), threading.get_ident(), []

        def work() -> None:
            meeting.wait()
            if threading.get_ident() != asking:
                cores.append(os.sched_getaffinity(0))

        helpers.together(work)
        return cores

    for core in sorted(allowed)[:2]:
        monkeypatch.setattr("probe.stats.crew.current_core", lambda core=core: core)
        assert of_helpers() == [allowed - {core} or allowed] * 2
    monkeypatch.setattr("probe.stats.crew.current_core", lambda: None)  # it cannot be told
    assert of_helpers() == [allowed - {core} or allowed] * 2
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="nobody chooses cores here")
def test_the_core_of_this_thread_is_one_that_it_may_use() -> None:
    assert current_core() in {None, *os.sched_getaffinity(0)}


def test_what_comes_first_is_done_while_the_helpers_work() -> None:
    asking, begun = threading.get_ident(), threading.Event()

    def work() -> None:
        if threading.get_ident() != asking:
            begun.set()

    did_begin: list[bool] = []
    Crew(1).together(work, first=lambda: did_begin.append(begun.wait(timeout=30)))
    assert did_begin == [True]


def test_who_finds_everything_finished_waits_for_nobody() -> None:
    asking, go_on = threading.get_ident(), threading.Event()

    def work() -> None:
        if threading.get_ident() != asking:
            go_on.wait(timeout=30)

    helpers = Crew(1)
    helpers.together(work, is_finished=lambda: True)  # would last for 30 s
    go_on.set()
    helpers.together(work)


def test_an_error_of_its_own_is_raised_once_all_are_through() -> None:
    asking, through = threading.get_ident(), []

    def work() -> None:
        if threading.get_ident() == asking:
            raise ValueError("broken")
        through.append(threading.get_ident())

    with pytest.raises(ValueError, match="broken"):
        Crew(1).together(work, is_finished=lambda: True)
    assert len(through) == 1


def test_an_error_of_a_helper_is_raised_and_it_works_on() -> None:
    asking, through = threading.get_ident(), []

    def work() -> None:
        if threading.get_ident() != asking:
            raise ValueError("broken")
        through.append(asking)

    helpers = Crew(1)
    with pytest.raises(ValueError, match="broken"):
        helpers.together(work)
    assert through == [asking]
    helpers.together(lambda: through.append(threading.get_ident()))
    assert len(set(through)) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_was_forked_has_threads_of_its_own() -> None:
    crew(1).together(int)
    child = os.fork()
    if child == 0:
        workers: set[int] = set()
        crew(1).together(lambda: workers.add(threading.get_ident()))
        os._exit(0 if len(workers) == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

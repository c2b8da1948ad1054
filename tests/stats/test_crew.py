"""Threads that work together with the one that asks."""

from __future__ import annotations

import os
import threading

import pytest

from probe.stats.crew import Crew, crew


def test_everyone_works_and_every_result_comes_back() -> None:
    meeting = threading.Barrier(3, timeout=30)  # nobody goes on before three are there
    results = Crew(2).together(lambda: (meeting.wait(), threading.get_ident())[1])
    assert len(set(results)) == 3
    assert threading.get_ident() in results


def test_without_helpers_the_work_is_done_here() -> None:
    assert Crew(0).together(threading.get_ident) == [threading.get_ident()]


@pytest.mark.parametrize("in_helper", [True, False])
def test_an_error_is_raised_once_all_are_through(in_helper: bool) -> None:
    asking, through = threading.get_ident(), []

    def work() -> None:
        if (threading.get_ident() != asking) == in_helper:
            raise ValueError("broken")
        through.append(threading.get_ident())

    helpers = Crew(1)
    with pytest.raises(ValueError, match="broken"):
        helpers.together(work)
    assert len(through) == 1
    assert helpers.together(lambda: 1) == [1, 1]  # and they work on


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_was_forked_has_threads_of_its_own() -> None:
    crew(1).together(int)
    child = os.fork()
    if child == 0:
        os._exit(0 if crew(1).together(lambda: 7) == [7, 7] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

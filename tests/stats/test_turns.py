"""Work dealt out to threads in compiled code."""

from __future__ import annotations

import re
import threading

import numpy as np
from numba import njit, types

from probe.stats.turns import are_finished, finish_turn, next_turn

TURNS = 1_000_000


@njit(nogil=True)
def take_all(ready, turns, taken):
    finish_turn(ready)
    while not are_finished(ready, 2):
        pass  # both begin at once
    turn = next_turn(turns)
    while turn < taken.shape[0]:
        taken[turn] += 1
        finish_turn(turns)
        turn = next_turn(turns)


def test_each_turn_is_taken_once():
    take_all(np.full(2, 1), np.zeros(2, np.int64), np.zeros(0, np.int8))  # compiled before
    ready, turns, taken = np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(TURNS, np.int8)
    threads = [threading.Thread(target=take_all, args=(ready, turns, taken)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (taken == 1).all()
    assert turns.tolist() == [TURNS + 2, TURNS]  # each asked once more, in vain


def test_a_turn_is_taken_and_finished_in_one_step():
    # threads that share a core for the length of the test above would not show it
    signature = 3 * (types.Array(types.int64, 1, "C"),)
    take_all.compile(signature)
    steps = re.findall(r"atomicrmw add .* (\w+), align", take_all.inspect_llvm(signature))
    assert {"monotonic", "release"} <= {*steps}


def test_who_asks_whether_all_are_finished_is_answered():
    assert are_finished(np.array([5, 3]), 3)
    assert not are_finished(np.array([5, 2]), 3)  # it does not wait forever

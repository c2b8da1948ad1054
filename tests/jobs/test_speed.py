"""The forward pass before and after a change: taken in turns, with the spread of the ratio."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from probe.jobs import speed
from probe.jobs.inputs import Inputs
from probe.jobs.speed import COMPILED, EAGER, Speed, measure_speed, speed_rows

NOW = [0.0]  # seconds, of a clock that the modules turn


class Waits(nn.Module):
    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.seen = seconds, []

    def forward(self, x):
        self.seen.append(len(x))
        NOW[0] += self.seconds
        return x


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(speed, "PAIRS", (5, 5))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: NOW[0])
    return Inputs((torch.arange(3.0)[:, None],), {}, np.arange(3), np.arange(3))


def test_the_ratio_is_that_of_the_times_and_above_one_where_it_is_faster_now(few):
    before, after = Waits(0.004), Waits(0.001)
    (row,) = measure_speed(before, after, few, modes=(EAGER,), batches=(2,))
    assert row.pairs == 5
    assert (row.before_ms, row.after_ms) == (pytest.approx(4), pytest.approx(1))
    assert row.low <= row.ratio <= row.high
    assert row.ratio == pytest.approx(4)
    assert row.verdict == "faster"
    assert measure_speed(after, before, few, modes=(EAGER,), batches=(2,))[0].verdict == "slower"


def test_batches_are_made_of_the_images_that_there_are_over_again(few):
    before, after = Waits(1), Waits(1)
    before.train()
    rows = measure_speed(before, after, few, modes=(EAGER,), batches=(1, 7))
    assert [row.batch for row in rows] == [1, 7]
    assert before.seen == after.seen == [1] * 7 + [7] * 7
    assert before.training


def test_half_of_the_pairs_decide_what_is_no_difference():
    row = Speed(EAGER, 1, 1.0, 1.0, 1.01, 0.97, 1.04, 9)
    assert row.verdict == "no difference"
    assert speed_rows([row])[0]["verdict"] == "no difference"


def test_without_a_compiler_the_eager_numbers_remain(few, monkeypatch):
    def compile_nothing(module, **_):
        def call(*_):
            raise RuntimeError("no C compiler\nsecond line")

        return call

    monkeypatch.setattr(torch, "compile", compile_nothing)
    rows = measure_speed(Waits(1), Waits(1), few, batches=(1,))
    assert [row.mode for row in rows] == [EAGER, COMPILED]
    assert rows[0].ratio is not None
    assert rows[1].ratio is None
    assert rows[1].verdict == "not measured"
    assert "no C compiler" in rows[1].note
    assert "second" not in rows[1].note

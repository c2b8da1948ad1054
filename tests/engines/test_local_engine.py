"""The local engine deals every batch out once, in order, and merges what its workers kept."""

from __future__ import annotations

import pickle
from functools import partial

import pytest

from probe.engines import ENGINES, find_engine
from probe.engines.local import run
from probe.errors import UsageError


class Recorder:
    """A worker that writes down what is done with it."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.open = False

    def __enter__(self):
        self.open = True
        return self

    def __exit__(self, *error):
        self.open = False

    def update(self, batch):
        assert self.open
        if batch == "broken":
            raise ValueError("a broken batch")
        self.batches.append(batch)

    def merge(self, other):
        assert not self.open
        assert not other.open
        self.batches += other.batches


@pytest.mark.parametrize("share", [None, 1, 2, 3, 5, 100])
def test_every_batch_is_worked_on_and_reported_once_in_order(share):
    reported = []
    worker = run(Recorder, iter(range(5)), reported.append, share)
    assert worker.batches == reported == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("share", "workers"), [(None, 1), (1, 5), (2, 3), (3, 2), (5, 1)])
def test_a_share_makes_a_new_worker_after_so_many_batches(share, workers):
    made = []

    def make_worker():
        made.append(Recorder())
        return made[-1]

    assert run(make_worker, range(5), lambda _: None, share) is made[0]
    assert len(made) == workers
    assert all(len(worker.batches) <= share for worker in made[1:])


def test_batches_are_taken_one_at_a_time():
    """What is reported was worked on before the next batch is read: a stream is never collected."""
    events = []

    def batches():
        for batch in range(3):
            events.append(("read", batch))
            yield batch

    run(Recorder, batches(), lambda batch: events.append(("reported", batch)), share=2)
    assert events == [(what, batch) for batch in range(3) for what in ("read", "reported")]


def test_without_a_batch_there_is_still_a_worker():
    assert run(Recorder, [], lambda _: None).batches == []


def test_a_failing_batch_closes_the_worker_and_is_not_reported():
    made, reported = Recorder(), []
    with pytest.raises(ValueError, match="a broken batch"):
        run(lambda: made, [1, "broken", 2], reported.append)
    assert not made.open
    assert reported == [1]


def test_an_engine_is_found_by_its_name_and_an_entry_is_all_that_a_new_one_needs(monkeypatch):
    assert find_engine("local") is run
    other = partial(run, share=1)
    monkeypatch.setitem(ENGINES, "other", other)
    assert find_engine("other") is other


def test_an_unknown_engine_is_refused_in_one_line():
    with pytest.raises(
        UsageError,
        match=r"^--engine 'lokal' is unknown \(did you mean local\?\); known: "
        "local, processes, ray$",
    ):
        find_engine("lokal")


def test_engines_travel_by_name_to_other_processes():
    assert all(pickle.loads(pickle.dumps(engine)) == engine for engine in ENGINES.values())

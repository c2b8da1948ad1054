"""Shares are worked on exactly once each, whatever dies."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from probe.engines import Means, Tree, find_engine
from probe.errors import ProbeError, UsageError
from support.pools import Collector, Numbers, here


class Failing(Collector):
    def update(self, batch):
        raise UsageError(f"batch {batch} is none")


class Unexpected(Collector):
    def update(self, batch):
        raise KeyError(batch)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("number", [0, 1, 2, 7, 10])
def test_every_batch_is_worked_on_once(workers, number):
    reported = []
    engine = replace(here(), means=Means(workers))
    worker = engine(Collector, Numbers(number), reported.append)
    assert worker.batches == list(range(number))
    assert reported == ["read"] * -(-number // 2)


def test_a_share_that_was_lost_is_worked_on_once_more():
    engine = here(lost=[1, 3])
    assert engine(Collector, Numbers(10), lambda _: None).batches == list(range(10))
    started = engine.open_pool.pools[0].started
    assert sorted(started) == [0, 1, 1, 2, 3, 3, 4]


def test_a_share_that_is_lost_twice_ends_the_job_in_one_line():
    with pytest.raises(ProbeError, match=r"^two worker processes died .* share 1 of the images"):
        here(lost=[1, 1])(Collector, Numbers(10), lambda _: None)


def test_shares_that_came_before_are_left_out():
    tree = Tree({(1, 0): pickle.dumps(Collector(batches=[0, 1, 2, 3]))})
    engine = here()
    assert engine(Collector, Numbers(9), lambda _: None, tree).batches == list(range(9))
    assert sorted(engine.open_pool.pools[0].started) == [2, 3, 4]


def test_an_error_of_the_work_is_raised_here_as_it_was():
    with pytest.raises(UsageError, match="^batch 0 is none$"):
        here()(Failing, Numbers(4), lambda _: None)
    with pytest.raises(KeyError) as caught:
        here()(Unexpected, Numbers(4), lambda _: None)
    assert "in a worker process" in str(caught.value.__cause__)
    assert "test_dealing.py" in str(caught.value.__cause__)


def test_an_address_goes_with_ray_alone():
    for name in ("local", "processes"):
        with pytest.raises(UsageError, match="--address 1.2.3.4:5: goes with --engine ray"):
            engine = find_engine(name, Means(address="1.2.3.4:5"))
            engine(Collector, Numbers(4), lambda _: None)

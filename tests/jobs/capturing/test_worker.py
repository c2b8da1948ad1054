"""Workers merge to what one worker would have seen, however the batches are dealt out."""

from __future__ import annotations

import pickle
from functools import partial

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.engines import ENGINES, local
from probe.jobs.capturing.attention import AttentionWorker
from probe.jobs.capturing.capture import capture
from probe.jobs.capturing.worker import Worker
from probe.jobs.inputs import open_model
from probe.records import Plan
from probe.store import verify_run
from support.captures import Everything
from support.properties import EXAMPLES, deals, merged
from support.workers import BATCHES, FEW, GRID, LAYERS, assert_same_worker, factory, inputs, ran


@pytest.fixture(scope="module")
def whole():
    return ran(factory(), inputs())


@pytest.fixture(scope="module")
def by_batch():
    """What a worker keeps of each batch, as it travels."""
    make_worker = factory()
    return [pickle.dumps(ran(make_worker, [batch])) for batch in inputs()]


@EXAMPLES
@given(st.permutations(range(len(BATCHES))), st.data())
def test_single_batches_merge_in_any_order_and_grouping(by_batch, whole, order, data):
    assert_same_worker(merged([pickle.loads(by_batch[number]) for number in order], data), whole)


@EXAMPLES
@given(deals(len(BATCHES)), st.booleans(), st.data())
def test_any_split_order_and_grouping_of_the_batches_gives_the_same(whole, deal, pickled, data):
    batches, make_worker = inputs(), factory()
    orders = [data.draw(st.permutations(own)) for own in deal]
    workers = [ran(make_worker, [batches[number] for number in own]) for own in orders]
    if pickled:
        workers = [pickle.loads(pickle.dumps(worker)) for worker in workers]
    assert_same_worker(merged(workers, data), whole)


def test_a_worker_pickled_half_way_is_taken_up_by_another(whole):
    batches, make_worker = inputs(), factory()
    with make_worker() as worker:
        for batch in batches[:5]:
            worker.update(batch)
        stored = pickle.dumps(worker)  # its hooks are still there
    with make_worker() as another:
        another.merge(pickle.loads(stored))
        for batch in batches[5:]:
            another.update(batch)
    assert_same_worker(another, whole)


class Unpicklable(Everything):
    """A model that cannot travel."""

    def __init__(self) -> None:
        super().__init__()
        self.function = lambda: None


def test_the_model_does_not_travel_with_what_was_seen(whole):
    worker = ran(factory(Unpicklable()), inputs())
    assert_same_worker(pickle.loads(pickle.dumps(worker)), whole)


def test_a_pickled_factory_makes_a_worker_with_a_model_of_its_own(whole):
    make_worker = factory()
    copied = pickle.loads(pickle.dumps(make_worker))
    assert copied.args[0].module is not make_worker.args[0].module
    assert_same_worker(ran(copied, inputs()), whole)


@pytest.mark.parametrize("name", ["bundled:vit_cifar10", "bundled:resnet_cifar10"])
def test_loaded_models_travel_with_their_factory(name):
    model = open_model(name)
    make_worker = pickle.loads(pickle.dumps(partial(Worker, model, Plan(images=2))))
    assert make_worker().images == 0
    assert make_worker.args[0].fingerprint == model.fingerprint


def test_a_worker_that_merges_nothing_or_into_nothing_is_unchanged(whole):
    empty = factory()()
    full = pickle.loads(pickle.dumps(whole))
    full.merge(pickle.loads(pickle.dumps(empty)))
    assert_same_worker(full, whole)
    empty.merge(pickle.loads(pickle.dumps(whole)))
    assert_same_worker(empty, whole)


def test_functional_norms_are_those_of_the_first_batch_whoever_ran_it():
    batches, make_worker = inputs(), factory()
    first, second = ran(make_worker, batches[:1]), ran(make_worker, batches[1:])
    second.functional = {"another pass": 3}
    second.merge(first)
    assert second.functional == {": layer_norm": 1}


def test_attention_workers_travel_and_merge_to_one():
    model, batches = open_model(Everything()), inputs()
    make_worker = partial(AttentionWorker, model, GRID)
    alone = ran(make_worker, batches)
    parts = [ran(make_worker, batches[part::3]) for part in (2, 0, 1)]
    first, *others = (pickle.loads(pickle.dumps(part)) for part in parts)
    for other in others:
        first.merge(other)
    assert first.images == 36
    rows, expected = (pd.DataFrame(worker.probe.rows()) for worker in (first, alone))
    pd.testing.assert_frame_equal(rows, expected, rtol=1e-12, atol=0)
    assert first.probe.unreadable == alone.probe.unreadable


def elsewhere(make_worker, batches, report, share):
    """The local engine as an engine of other processes sees it: what goes and comes is pickled."""
    worker = local.run(pickle.loads(pickle.dumps(make_worker)), batches, report, share)
    return pickle.loads(pickle.dumps(worker))


@pytest.mark.parametrize("share", [12, 6, 4], ids=["1 part", "2 parts", "3 parts"])
@pytest.mark.parametrize("engine", [local.run, elsewhere], ids=["here", "elsewhere"])
def test_a_plan_run_in_parts_is_the_same_run(engine, share, tmp_path, monkeypatch):
    options = {**GRID, **FEW, "attention": True}
    expected = capture(Everything(), BATCHES, out=tmp_path / "local", **options)
    monkeypatch.setitem(ENGINES, "parts", partial(engine, share=share))
    run = capture(Everything(), BATCHES, out=tmp_path / "parts", engine="parts", **options)
    samples = sorted(path.name for path in (run.path / "samples").iterdir())
    assert len(samples) == len(LAYERS)
    for name in samples:
        a, b = ((r.path / "samples" / name).read_bytes() for r in (run, expected))
        assert a == b, name
    for table in ("moments", "profile", "rows", "attention"):
        left, right = getattr(run, table)(), getattr(expected, table)()
        pd.testing.assert_frame_equal(left, right, rtol=1e-11, atol=1e-11)
    pd.testing.assert_frame_equal(run.layers, expected.layers, rtol=1e-12)
    for entry in ("attention", "not_captured", "images_seen"):
        assert run.manifest[entry] == expected.manifest[entry]
    assert run.manifest["plan"] == expected.manifest["plan"] | {"engine": "parts"}
    assert verify_run(run) == verify_run(expected)

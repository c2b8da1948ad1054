"""What a conversion costs, measured by workers in other processes: the same numbers to the bit as
in this process, for any number of workers and whatever dies.
"""

from __future__ import annotations

import sys
import threading

import pandas as pd
import pytest
import torch
from torch import nn

from probe.engines import ENGINES
from probe.engines import local as local_engine
from probe.errors import ProbeError, UsageError
from probe.jobs.capturing.capture import capture
from probe.jobs.converting import evaluate
from probe.jobs.converting.convert import convert
from probe.jobs.converting.eval_data import read_eval_data
from probe.jobs.converting.evaluate import Comparison
from probe.jobs.converting.worker import ComparisonWorker
from probe.jobs.fitting.fit import fit
from probe.jobs.inputs import open_model
from probe.models.replacing.swap import swap
from probe.records import silent
from support.captures import token_batches
from support.classifiers import Classifier
from support.interrupted import tokens, write_images
from support.pools import DeadlyTokens, here


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """In sub-folders, which are the classes; some of them cannot be read."""
    folder = write_images(tmp_path_factory.mktemp("elsewhere") / "images")
    for index, path in enumerate(sorted(folder.iterdir())):
        (folder / str(index % 3)).mkdir(exist_ok=True)
        path.rename(folder / str(index % 3) / path.name)
    return folder


class FourNorms(Classifier):
    """The cheapest to replace is not the first: the choice asks for sets of layers of its own."""

    def __init__(self):
        super().__init__()
        self.norm0, self.norm3 = nn.LayerNorm(8), nn.LayerNorm(8)
        with torch.no_grad():
            self.norm0.weight *= 3
            self.head.weight *= 20

    def forward(self, x):
        return super().forward(self.norm0(x) + self.norm3(x * x))


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    made = capture(FourNorms().eval(), images, out=out, transform=tokens, samples=100)
    fit(made)
    return made


@pytest.fixture(scope="module")
def converted(run, images):
    """Converts a new copy of the classifier on the images."""

    def made(**options):
        defaults = {"model": FourNorms().eval(), "data": images, "transform": tokens}
        return convert(run, "derf", **defaults | {"batch_size": 3} | options)

    return made


STEPS = {"tolerance": 0.2, "calibrate": True}  # asks again, and with changed networks


@pytest.fixture(scope="module")
def local(converted):
    return converted(**STEPS)


@pytest.fixture(scope="module")
def plain(converted):
    return converted(tolerance=STEPS["tolerance"])


@pytest.fixture
def elsewhere(monkeypatch):
    """Name of an engine that is made anew by calling it, and its opener."""

    def made(**options):
        engine = here(**options)
        monkeypatch.setitem(ENGINES, "here", engine)
        return "here", engine.open_pool

    return made


def assert_same(result, expected):
    pd.testing.assert_frame_equal(result.table, expected.table, rtol=0, atol=0)
    for name in ("score", "stages", "accuracy", "images", "data", "notes", "calibration"):
        assert getattr(result, name) == getattr(expected, name), name
    for name, value in expected.model.module.state_dict().items():
        assert torch.equal(result.model.module.state_dict()[name], value), name


@pytest.mark.parametrize(("workers", "lost"), [(1, []), (3, [0, 2]), (4, [5])])
def test_any_number_of_workers_gives_the_numbers_of_this_process(
    workers, lost, converted, local, elsewhere
):
    name, opener = elsewhere(seed=workers, lost=lost)
    stages = set()
    result = converted(
        engine=name, workers=workers, progress=lambda *told: stages.add(told[0]), **STEPS
    )
    assert_same(result, local)
    assert local.accuracy is not None
    assert "4 images could not be read, such as 0/12.png" in local.notes[-1]
    assert len(opener.pools) == 2  # the plain conversion with its choice, the calibrated network
    assert opener.pools[0].started.count(8) > 2  # several requests, the same processes


def test_images_are_read_where_the_model_runs(converted, elsewhere):
    stages = {}
    name, _ = elsewhere()
    converted(engine=name, progress=lambda stage, *told: stages.update({stage: told[:2]}))
    assert "images" not in stages
    assert stages["convert"] == (
        8 * 9,
        8 * 9,
    )  # the original, four alone, those before each of three


def test_batches_of_a_user_travel_with_each_request(run, elsewhere):
    labelled = [(batch, torch.arange(len(batch)) % 3) for batch in token_batches(positions=12)]
    options = {"data": labelled, "tolerance": 0.3}
    expected = convert(run, model=FourNorms().eval(), **options)
    name, _ = elsewhere(seed=1, lost=[1])
    result = convert(run, model=FourNorms().eval(), engine=name, workers=2, **options)
    assert_same(result, expected)


def test_measuring_the_time_takes_the_first_images(converted, elsewhere, monkeypatch):
    seen = []

    def measured(before, after, inputs, **_):
        seen.append((before, after, inputs.images.tolist()))
        return []

    monkeypatch.setattr("probe.jobs.converting.improve.measure_speed", measured)
    for engine in ("local", elsewhere()[0]):
        converted(engine=engine, measure_speed=True)
    (_, _, first), (before, after, images) = seen
    assert images == first == [0, 1, 2]
    assert type(before.norm1).__name__ == "LayerNorm"
    assert type(after.norm1).__name__ == "Derf"


class Unpicklable(FourNorms):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()  # what cannot travel


class BrokenHead(FourNorms):
    def forward(self, x):
        return super().forward(x) * float("nan")


PROCESSES = {"engine": "processes"}
REFUSED = [
    (lambda: FourNorms().train(), {}, "^a part of the model is in train mode, so that a batch"),
    (
        lambda: Unpicklable().eval(),
        PROCESSES,
        "^the model, its transform or the mask cannot be sent to",
    ),
    (
        lambda: FourNorms().eval(),
        PROCESSES | {"address": "1.2.3.4:5"},
        "^--address 1.2.3.4:5: goes with",
    ),
    (lambda: FourNorms().eval(), {"device": "cuda:1"}, "^--device cuda:1: workers have a GPU"),
    (lambda: BrokenHead().eval(), {}, "^the original model gives logits that are not finite"),
]


@pytest.mark.parametrize(
    ("make", "options", "message"), REFUSED, ids=["train", "pickle", "address", "device", "nan"]
)
def test_what_cannot_be_done_elsewhere_is_one_line_and_changes_nothing(
    make, options, message, converted, elsewhere
):
    module = make()
    norms = module.norm1, module.norm2
    with pytest.raises(ProbeError, match=message) as caught:
        converted(model=module, **{"engine": elsewhere()[0]} | options)
    assert "\n" not in str(caught.value)
    assert (module.norm1, module.norm2) == norms


def test_without_ray_its_engine_says_what_to_install_before_anything_is_loaded(
    converted, monkeypatch
):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("probe.jobs.converting.convert.run_model", None)
    with pytest.raises(UsageError, match=r"^--engine ray needs the package `ray`: "):
        converted(engine="ray")


def test_a_wrong_address_is_told(converted):
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match=r"^--address 127.0.0.1:1: no Ray cluster answers there"):
        converted(engine="ray", address="127.0.0.1:1")


def test_images_that_are_lost_on_the_way_end_the_job(converted, elsewhere, monkeypatch):
    cut = evaluate.shares_of

    def one_less(stream):
        shares = cut(stream)
        monkeypatch.setattr(type(shares), "shares", lambda self: iter([range(2), range(2, 4)]))
        return shares

    monkeypatch.setattr(evaluate, "shares_of", one_less)
    with pytest.raises(ProbeError, match="12 of the 26 planned images were seen"):
        converted(engine=elsewhere()[0])


def test_batches_in_another_order_give_the_same_numbers_and_leave_the_original():
    model = open_model(FourNorms().eval())
    swapped = swap(model.module, "dyt", init="match")
    slots = {slot.key: [slot] for slot in swapped.slots}
    options = {"num_images": None, "batch_size": 8, "workers": 0, "seed": 0, "transform": None}
    data = read_eval_data(model, token_batches(160), None, progress=silent, **options)

    def backwards(make_worker, batches, report):
        return local_engine.run(make_worker, list(batches)[::-1], report)

    one, other = (
        Comparison(model, slots, data, engine) for engine in (local_engine.run, backwards)
    )
    for comparison in (one, other):
        comparison.ask([], errors=True)
        assert all(slot.parent.get_submodule(slot.key) is slot.old for slot in swapped.slots)
    assert other.score(slots) == one.score(slots)
    assert other.output_errors == one.output_errors


def test_a_batch_does_not_count_twice():
    one, other = (ComparisonWorker(None, {}, None, None) for _ in range(2))
    one.batches, other.batches = {0: "sums", 3: "sums"}, {3: "sums"}
    with pytest.raises(ValueError, match="batch 3 came twice"):
        one.merge(other)


def test_a_process_gives_the_numbers_of_this_one(converted, plain):
    options = {"engine": "processes", "workers": 1, "device": "cpu"}
    assert_same(converted(tolerance=0.2, **options), plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["processes", "ray"])
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_two_processes_one_of_which_is_killed_give_the_numbers_of_this_one(
    name, converted, plain, tmp_path
):
    if name == "ray":
        pytest.importorskip("ray")
    deadly = DeadlyTokens(tmp_path / "flag", after=10)
    options = {"engine": name, "workers": 2, "device": "cpu"}
    result = converted(transform=deadly, tolerance=0.2, **options)
    assert (tmp_path / "flag").exists()
    assert_same(result, plain)

"""Distilling: a converted network learns from its original, without labels, and goes on after any
end.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import probe
from probe.errors import ProbeError, UsageError
from probe.jobs.capturing.capture import capture
from probe.jobs.fitting.fit import fit
from probe.models.loading.load import load_model
from support.distilling_process import ASKED, fresh_model
from support.tiny_training import colour_folders

TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(colour_folders(tmp_path_factory.mktemp("data")) / "train")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    finished = capture(fresh_model(), data, out=out, num_images=16, samples=64)
    fit(finished)
    return finished


def distilled(run, data, out, **more):
    return probe.distill(run, data=data, out=out, model=fresh_model(), **{**ASKED, **more})


@pytest.fixture(scope="module")
def whole(run, data, tmp_path_factory):
    """All parameters, to the end."""
    return distilled(run, data, tmp_path_factory.mktemp("whole") / "m.safetensors", train="all")


def test_the_network_comes_closer_to_its_original_on_held_out_images(whole):
    rounds = whole.distillation.rounds
    assert rounds["epoch"].tolist() == list(range(7))
    assert rounds["step"].tolist() == list(range(7))
    best = whole.distillation.best_round
    assert best == rounds["kl"].idxmin() > 0
    assert whole.distillation.images == 48
    assert list(whole.stages) == ["converted", "distilled"]
    assert whole.score == whole.stages["distilled"]


def test_the_file_opens_to_the_network_that_learned(whole):
    loaded = probe.load_converted(whole.files[0], fresh_model())
    assert loaded.fingerprint == whole.model.fingerprint
    assert not list(whole.files[0].parent.glob("*.distilling"))


def test_the_norms_alone_learn_where_that_is_asked_for(run, data, tmp_path):
    done = distilled(run, data, tmp_path / "m.safetensors", train="norms")
    before, after = fresh_model().module.state_dict(), done.model.module.state_dict()
    norms = tuple(done.table["layer"])
    kept = [name for name in before if not name.startswith(norms)]
    assert kept
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert all(each.requires_grad for each in done.model.module.parameters())


def test_labels_are_not_read(run, data, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a label was read")

    monkeypatch.setattr("probe.training.images.labels_of", refuse)
    monkeypatch.setattr("probe.jobs.converting.eval_data.labels_of", refuse)
    images = torch.zeros(2, 3, 16, 16)
    distilled(run, data, tmp_path / "m.safetensors", steps=1, eval_data=[images])


class Stop(Exception):
    pass


def test_stopped_and_continued_is_the_same_bit_for_bit(run, data, whole, tmp_path):
    seen = []

    def stopping(stage, done, total, message=""):
        seen.append(stage == "train" and "loss" in message)
        if sum(seen) > 3:
            raise Stop

    out = tmp_path / "m.safetensors"
    with pytest.raises(Stop):
        distilled(run, data, out, train="all", progress=stopping)
    assert not out.exists()
    assert (tmp_path / "m.distilling" / "last").is_dir()
    with pytest.raises(UsageError, match="holds another training: lr is"):
        distilled(run, data, out, train="all", lr=0.5)
    assert (tmp_path / "m.distilling" / "last").is_dir()
    heard = []
    distilled(run, data, out, train="all", say=heard.append)
    assert any("continues: " in line for line in heard)
    first, second = load_file(whole.files[0]), load_file(out)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.slow
def test_killed_and_continued_is_the_same_bit_for_bit(run, data, whole, tmp_path):
    out = tmp_path / "m.safetensors"
    asked = {"run": str(run.path), "data": data, "out": str(out), "train": "all"}
    command = [sys.executable, "-m", "support.distilling_process", json.dumps(asked)]
    process = subprocess.Popen(command, cwd=TESTS)
    state = tmp_path / "m.distilling" / "last" / "state.pt"
    while not state.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    distilled(run, data, out, train="all")
    first, second = load_file(whole.files[0]), load_file(out)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_numbers_that_are_not_finite_stop_it_by_name(run, data, tmp_path):
    with pytest.raises(ProbeError, match="of update .* is not finite"):
        distilled(run, data, tmp_path / "m.safetensors", train="all", lr=1e30)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"steps": 0}, "--distill 0: must be at least 1"),
        ({"train": "some"}, "--train"),
        ({"lr": -1.0}, "--lr -1: must be above 0"),
        ({"data": "nowhere"}, "nowhere"),
    ],
)
def test_mistakes_are_one_line(asked, message, run, data, tmp_path):
    with pytest.raises(UsageError, match=message) as caught:
        distilled(run, **{"data": data, **asked}, out=tmp_path / "m.safetensors")
    assert "\n" not in str(caught.value)


def test_a_converted_file_opens_by_model(vit_run, tmp_path):
    done = probe.convert(vit_run, out=tmp_path / "m.safetensors", layers="norm", num_images=2)
    assert load_model(str(tmp_path / "m.safetensors")).fingerprint == done.model.fingerprint

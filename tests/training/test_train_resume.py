"""Killed and continued is the same as never stopped, bit for bit on the CPU."""

from __future__ import annotations

import json
import os
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
from probe.training.folder import Interrupted
from support.tiny_training import ASKED, MODEL, colour_folders

TESTS = Path(__file__).parents[1]
# everything that has a state, or draws random numbers
ALL = {
    **ASKED,
    "model": MODEL,
    "norm": "batch_norm",
    "model_options": {**ASKED["model_options"], "proj_drop_rate": 0.1},
    "drop_path": 0.1,
    "ema": 0.9,
    "mixup": 0.4,
    "cutmix": 0.5,
    "reprob": 0.3,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "smoothing": 0.1,
    "drop_last": False,
    "batch_size": 7,
    "epochs": 3,
    "save_minutes": 1e-6,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(colour_folders(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "t"
    return probe.train(data=data, out=str(out), **ALL)


def same(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


class Stop(Exception):
    pass


def stopped_after(updates: int):
    """A progress that leaves a training after so many reports."""
    seen = 0

    def progress(stage, done, total, message=""):
        nonlocal seen
        seen += stage == "train" and "loss" in message
        if seen > updates:
            raise Stop

    return progress


@pytest.mark.parametrize("updates", [3, 9])
def test_stopped_within_an_epoch_and_continued_is_the_same(updates, data, uninterrupted, tmp_path):
    out = str(tmp_path / "t")
    with pytest.raises(Stop):
        probe.train(data=data, out=out, progress=stopped_after(updates), **ALL)
    done = probe.train(data=data, out=out, **ALL)
    for name in ("model.safetensors", "last/model.safetensors", "last/ema.safetensors"):
        assert same(done.path / name, uninterrupted.path / name), name
    measured = ["step", "learning_rate", "train_loss", "val_loss", "top1"]
    assert done.epochs[measured].equals(uninterrupted.epochs[measured])
    assert done.norms.equals(uninterrupted.norms)


@pytest.mark.long
def test_killed_and_continued_is_the_same(data, uninterrupted, tmp_path):
    out = tmp_path / "t"
    asked = json.dumps({"data": data, "out": str(out), **ALL})
    command = [sys.executable, "-m", "support.training_process", asked]
    kills = 0
    for seconds in (0.3, 0.9):  # after the folder is there, again and again
        process = subprocess.Popen(command, cwd=TESTS, env=own_environment())
        while not (out / "last" / "state.pt").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills
    done = probe.train(data=data, out=str(out), **ALL)
    assert same(done.weights, uninterrupted.weights)
    assert not list(out.glob(".*.results"))


def own_environment() -> dict[str, str]:
    root = str(Path(probe.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, str(TESTS)])}


def test_ctrl_c_ends_at_the_last_checkpoint_and_says_where(data, tmp_path):
    def interrupting(stage, done, total, message=""):
        if "epoch 2/3, loss" in message:
            raise KeyboardInterrupt

    out = tmp_path / "t"
    asked = ALL | {"save_minutes": 60}
    with pytest.raises(Interrupted, match=r"interrupted; .* holds 1 of 3 epochs; the same command"):
        probe.train(data=data, out=str(out), progress=interrupting, **asked)
    assert json.loads((out / "training.json").read_text())["status"] == "interrupted"


def test_a_damaged_state_is_told_in_one_line(data, tmp_path):
    out = tmp_path / "t"
    with pytest.raises(Stop):
        probe.train(data=data, out=str(out), progress=stopped_after(2), **ALL)
    (out / "last" / "state.pt").write_bytes(b"no state")
    with pytest.raises(ProbeError, match="last is damaged"):
        probe.train(data=data, out=str(out), **ALL)


def test_a_folder_with_other_files_is_not_trained_into(data, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds files and no training \(notes.txt\)"):
        probe.train(data=data, out=str(tmp_path), **ALL)


def test_overwriting_begins_anew(data, tmp_path, uninterrupted):
    out = str(tmp_path / "t")
    with pytest.raises(Stop):
        probe.train(data=data, out=out, progress=stopped_after(2), **ALL | {"seed": 5})
    done = probe.train(data=data, out=out, overwrite=True, **ALL)
    assert same(done.weights, uninterrupted.weights)

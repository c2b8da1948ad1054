"""Several processes with the same global batch train as one does, to rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import probe
from probe.errors import UsageError
from support.tiny_training import ASKED, MODEL, colour_folders

pytestmark = pytest.mark.long
TESTS = Path(__file__).parents[1]
MIXED = ASKED | {
    "mixup": 0.3,
    "cutmix": 0.5,
    "ema": 0.9,
    "drop_last": False,
    "batch_size": 10,
    "opt": "sgd",  # Adam would not see a gradient that is a multiple
    "lr": 0.05,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(colour_folders(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "t"
    return probe.train(MODEL, "dyt", data=data, out=str(out), **MIXED)


def assert_close(one: Path, other: Path) -> None:
    first, second = load_file(one), load_file(other)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_processes_train_as_one(data, alone, tmp_path):
    lines: list[str] = []
    both = probe.train(
        MODEL,
        "dyt",
        data=data,
        out=str(tmp_path / "t"),
        processes=2,
        say=lines.append,
        **MIXED,
    )
    assert any("on 2 processes" in line for line in lines)
    assert both.record["processes"] == 2
    assert_close(alone.weights, both.weights)
    measured = ["train_loss", "val_loss"]
    difference = (both.epochs[measured] - alone.epochs[measured]).abs().max().max()
    assert difference < 1e-4


def test_micro_batches_train_as_whole_ones(data, alone, tmp_path):
    out = str(tmp_path / "t")
    parts = probe.train(MODEL, "dyt", data=data, out=out, micro_batch=3, **MIXED)
    assert_close(alone.weights, parts.weights)


@pytest.mark.slow
def test_an_error_in_the_processes_is_one_error_here(data, tmp_path):
    out = str(tmp_path / "t")
    with pytest.raises(UsageError, match="do not fill a batch of 4000"):
        probe.train(MODEL, "dyt", data=data, out=out, processes=2, **(ASKED | {"batch_size": 4000}))


@pytest.mark.slow
def test_torchrun_starts_the_command(data, alone, tmp_path):
    root = str(Path(probe.__file__).parents[1])
    options = (
        f"--model {MODEL} --norm dyt --data {data} --out {tmp_path / 't'} --epochs 2 --lr 0.05 "
        "--opt sgd --batch-size 10 --no-drop-last --crop padded --mixup 0.3 --cutmix 0.5 --ema 0.9 "
        "--device cpu --model-options img_size=16,patch_size=8,embed_dim=24,depth=2,num_heads=3"
    )
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "probe"]
    done = subprocess.run(
        [sys.executable, *run, "train", *options.split()],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained:") == 1  # the first process alone speaks
    assert_close(alone.weights, tmp_path / "t" / "model.safetensors")

"""A training from its call to its folder: tables, checkpoint, network."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import probe
from probe.errors import UsageError
from support.tiny_training import ASKED, MODEL, colour_folders


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(colour_folders(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("training") / "dyt"
    return probe.train(MODEL, "dyt", data=data, out=str(out), keep_every=1, **ASKED)


def test_a_training_leaves_a_row_per_epoch_and_one_before_it(trained):
    table = trained.epochs
    assert table["epoch"].tolist() == [0, 1, 2]
    assert table["step"].tolist() == [0, 6, 12]
    assert table["train_loss"].isna().tolist() == [True, False, False]
    assert table["top5"].isna().all()  # three classes


def test_the_last_alphas_of_the_history_are_those_of_the_checkpoint(trained):
    norms = trained.norms.query("quantity == 'alpha'")
    weights = load_file(trained.weights)
    last = norms[norms["epoch"] == 2].set_index("layer")["value"]
    assert len(last) == 5
    for layer, value in last.items():
        assert value == float(weights[f"{layer}.alpha"].item())
    first = norms[norms["epoch"] == 0].set_index("layer")["value"]
    assert (first == 0.5).all()
    assert (last != first).all()


def test_the_history_holds_the_spread_of_what_enters_each_layer(trained):
    wide = trained.norms.pivot_table(index=["epoch", "layer"], columns="quantity", values="value")
    assert ((wide["input_std"] * wide["inverse_std"] - 1).abs() < 1e-12).all()


def test_a_trained_file_is_built_again_by_its_own_name(trained):
    model = probe.load_model(str(trained.weights), device="cpu")
    assert type(model.module.blocks[0].norm1).__name__ == "DyT"
    assert model.input_size == (3, 16, 16)
    for name, value in load_file(trained.weights).items():
        assert torch.equal(model.module.state_dict()[name], value)


def test_kept_weights_of_an_epoch_are_files_of_that_kind(trained):
    names = sorted(each.name for each in (trained.path / "checkpoints").iterdir())
    assert names == ["epoch_000.safetensors", "epoch_001.safetensors", "epoch_002.safetensors"]
    last = load_file(trained.path / "checkpoints" / names[-1])
    assert all(torch.equal(value, last[name]) for name, value in load_file(trained.weights).items())


def test_the_record_says_how_it_was_trained(trained):
    record = json.loads((trained.path / "training.json").read_text())
    assert record["status"] == "finished"
    assert record["recipe"]["norm"] == "dyt"
    assert record["recipe"]["batch_size"] == 8
    assert record["data"]["training"]["identity"].startswith("sha256:")


def test_a_finished_training_is_not_done_again(trained, data):
    before = (trained.path / "training.json").stat().st_mtime_ns
    again = probe.train(MODEL, "dyt", data=data, out=str(trained.path), **ASKED)
    assert again.epochs.equals(trained.epochs)
    assert (trained.path / "training.json").stat().st_mtime_ns == before


def test_another_training_in_the_same_folder_is_refused_with_the_difference(trained, data):
    with pytest.raises(UsageError, match=r"norm is \"derf\", was \"dyt\""):
        probe.train(MODEL, "derf", data=data, out=str(trained.path), **ASKED)

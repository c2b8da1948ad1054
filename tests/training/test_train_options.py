"""Trackers, captures during the training, starts from fitted curves, heads, plans."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import probe
from probe.cli.main import main
from probe.errors import ProbeError, UsageError
from probe.training.train import planned
from support.tiny_training import ASKED, MODEL, colour_folders


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(colour_folders(tmp_path_factory.mktemp("data")))


def test_tensorboard_gets_the_table_and_the_alphas(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = probe.train(MODEL, "dyt", data=data, out=str(tmp_path / "t"), log="tensorboard", **ASKED)
    events = EventAccumulator(str(next((done.path / "tensorboard").rglob("events*")).parent))
    events.Reload()
    top1 = [event.value for event in events.Scalars("top1")]
    assert top1 == pytest.approx(done.epochs["top1"].tolist())
    assert [event.step for event in events.Scalars("alpha/norm")] == [0, 6, 12]


def test_a_tracker_without_its_package_is_told(data, tmp_path):
    with pytest.raises(ProbeError, match="--log wandb needs the package `wandb`"):
        probe.train(MODEL, data=data, out=str(tmp_path / "t"), log="wandb", **ASKED)


def test_an_unknown_tracker_is_told_with_the_nearest(data, tmp_path):
    with pytest.raises(UsageError, match="did you mean tensorboard"):
        probe.train(MODEL, data=data, out=str(tmp_path / "t"), log="tensorbord", **ASKED)


def test_runs_are_captured_at_each_kth_epoch(data, tmp_path):
    done = probe.train(MODEL, "dyt", data=data, out=str(tmp_path / "t"), probe_every=2, **ASKED)
    names = sorted(each.name for each in (done.path / "probes").iterdir())
    assert names == ["epoch_000", "epoch_002"]
    run = probe.open_run(done.path / "probes" / "epoch_002")
    alphas = done.norms.query("quantity == 'alpha' and epoch == 2")
    assert run.layers["layer"].tolist() == alphas["layer"].tolist()
    assert run.has("fits")


def test_a_pretrained_network_starts_from_fitted_curves(data, vit_run, tmp_path):
    done = probe.train(
        "bundled:vit_cifar10",
        "dyt",
        data=data,
        out=str(tmp_path / "t"),
        weights="pretrained",
        init="fitted",
        alphas=str(vit_run.path),
        device="cpu",
        epochs=1,
        batch_size=8,
    )
    first = done.norms.query("quantity == 'alpha' and epoch == 0").set_index("layer")["value"]
    fitted = vit_run.alphas().set_index("layer")["alpha_channel"].dropna()
    shared = [layer for layer in fitted.index if layer in first.index]
    assert len(shared) > 5
    assert first[shared].to_numpy() == pytest.approx(fitted[shared].to_numpy(), rel=1e-5)
    assert "new head head of 3 classes, as the data has; it had 10" in done.record["notes"]
    model = probe.load_model(str(done.weights), device="cpu")  # the new head is built again
    assert model.module.head.out_features == 3
    assert torch.equal(model.module.head.weight, load_file(done.weights)["head.weight"])


def test_dtn_gets_grid_and_heads_from_the_network(data, tmp_path):
    options = {**ASKED["model_options"], "class_token": False, "global_pool": "avg"}
    asked = ASKED | {"model_options": options, "norm_layers": "blocks.*", "epochs": 1}
    done = probe.train(MODEL, "dtn", data=data, out=str(tmp_path / "t"), **asked)
    block = done.module.blocks[0].norm1
    assert (block.num_heads, block.grid) == (3, (2, 2))
    shares = done.norms.query("quantity == 'mean_share' and layer == 'blocks.0.norm1'")
    assert shares["index"].tolist() == [0, 1, 2, 0, 1, 2]
    assert (shares.query("epoch == 0")["value"] == 0.5).all()
    positions = done.norms.query("quantity == 'position_weight' and layer == 'blocks.0.norm1'")
    assert positions["index"].tolist() == [*range(9), *range(9)]


@pytest.mark.parametrize(
    ("norm", "quantity"),
    [
        ("learnable_scaler", "gain_negative_share"),
        ("power_norm", "running_scale"),
        ("unified_norm", "running_scale"),
        ("switch_norm", "running_scale"),
        ("derf", "shift"),
        ("dyisru", "beta"),
    ],
)
def test_the_history_holds_what_a_normalizer_learns(norm, quantity, data, tmp_path):
    done = probe.train(MODEL, norm, data=data, out=str(tmp_path / "t"), **ASKED | {"epochs": 1})
    rows = done.norms.query("quantity == @quantity and layer == 'blocks.1.norm2'")
    assert rows["epoch"].tolist() == [0, 1]
    assert rows["value"].iloc[0] != rows["value"].iloc[1] or quantity == "gain_negative_share"


def test_a_network_of_ones_own_is_trained_and_loaded_by_hand(data, tmp_path):
    from torch import nn

    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.LayerNorm(8), nn.Linear(8, 5))

    asked = {key: each for key, each in ASKED.items() if key != "model_options"}
    out = str(tmp_path / "t")
    done = probe.train(make(), "derf", data=data, out=out, image_size=16, **asked)
    assert load_file(done.weights)["3.weight"].shape == (3, 8)
    with pytest.raises(UsageError, match="is of a module Sequential, not of a named model"):
        probe.load_model(str(done.weights))


def test_a_plan_says_what_would_be_done_and_writes_nothing(data, tmp_path, capsys):
    lines = planned(
        model=MODEL, norm="dyt", data=data, out=str(tmp_path / "t"), micro_batch=4, **ASKED
    )
    text = "\n".join(lines)
    assert "dyt in place of 5 of 5 norms" in text
    assert "48 training and 24 validation images of 3 classes" in text
    assert "2 epochs of 6 updates, 8 images an update on one process, 2 forward passes of 4" in text
    assert not (tmp_path / "t").exists()
    command = f"train --model {MODEL} --data {data} --plan --device cpu --batch-size 8"
    assert main(command.split()) == 0
    assert "recipe plain" in capsys.readouterr().out


def test_the_command_trains_and_prints_a_table(data, tmp_path, capsys):
    options = "--model-options img_size=16,patch_size=8,embed_dim=24,depth=1,num_heads=3"
    command = (
        f"train --model {MODEL} --norm dyt --data {data} --out {tmp_path / 't'} --epochs 1 "
        f"--batch-size 8 --crop padded --device cpu {options}"
    ).split()
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "epoch 1/1: loss" in shown.err
    assert "best top-1" in shown.out
    assert main([*command, "--json", "--quiet"]) == 0  # finished already
    document = json.loads(capsys.readouterr().out)
    assert [row["epoch"] for row in document["epochs"]] == [0, 1]

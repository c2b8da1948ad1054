"""Comparisons of norms: cells share all but the norm, a stopped one goes on to the same tables, and
what cannot be compared is told before anything runs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import probe
from probe.cli.main import main
from probe.errors import UsageError
from probe.formatting import records
from probe.training.comparing.starts import Asked, outside_of_norms
from probe.training.comparing.variants import variants
from probe.training.network import build_network
from support.tiny_training import ASKED, MODEL, VIT, colour_folders

TESTS = Path(__file__).parents[1]
NORMS = "layer_norm,dyt"
TINY = VIT | {"depth": 1, "class_token": False, "global_pool": "avg"}
OPTIONS: dict[str, Any] = {name: value for name, value in ASKED.items() if name != "report"}
OPTIONS |= {"model": MODEL, "model_options": TINY, "norm_layers": "blocks.*", "seeds": 2}
OPTIONS |= {"figures": False, "probe_images": 0}
MEASURED = ("seconds_per_epoch", "forward_ms", "forward_ratio")
MEASURED += ("forward_ratio_low", "forward_ratio_high")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(colour_folders(tmp_path_factory.mktemp("data"), images=8))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "c"
    return probe.compare_norms(norms=NORMS, data=data, out=str(out), **OPTIONS)


def numbers(comparison: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables without what a clock measured."""
    return tuple(
        table.drop(columns=[name for name in MEASURED if name in table])
        for table in (comparison.table, comparison.cells)
    )


def assert_same(one: Any, other: Any) -> None:
    for mine, theirs in zip(numbers(one), numbers(other), strict=True):
        pd.testing.assert_frame_equal(mine, theirs)


def test_a_row_per_norm_and_a_cell_per_seed(whole):
    assert list(whole.table["norm"]) == ["layer_norm", "dyt"]
    assert list(whole.table["n"]) == [2, 2]
    assert list(zip(whole.cells["norm"], whole.cells["seed"], strict=True)) == [
        ("layer_norm", 0),
        ("dyt", 0),
        ("layer_norm", 1),
        ("dyt", 1),
    ]
    for row in whole.cells.itertuples():
        training = probe.open_training(whole.path / "cells" / row.norm / f"seed_{row.seed}")
        assert row.lr == training.record["recipe"]["lr"] == OPTIONS["lr"]
        assert row.top1 == training.epochs["top1"].iloc[-1]
        assert row.parameters == training.record["model"]["parameters"]


def test_differences_are_paired_by_seed(whole):
    top1 = whole.cells.pivot_table(index="seed", columns="norm", values="top1")
    paired = top1["dyt"] - top1["layer_norm"]
    row = whole.table.set_index("norm").loc["dyt"]
    assert row.difference == pytest.approx(paired.mean())
    half = 12.7062047 * paired.std() / 2**0.5  # Student's t of one degree of freedom
    assert row.difference_high - row.difference == pytest.approx(half, rel=1e-6)
    assert pd.isna(whole.table["difference"].iloc[0])  # the reference


def test_all_norms_of_a_seed_start_equal_outside_of_them(data):
    asked = Asked(None, False, {k: OPTIONS[k] for k in ("model", "model_options", "norm_layers")})

    def start(label: str, seed: int) -> dict[str, torch.Tensor]:
        (variant,) = variants(label)
        return outside_of_norms(build_network(asked.choice(variant, seed).recipe, 3).module)

    for seed in (0, 1):
        first, *others = (start(label, seed) for label in ("own", "dyt", "dtn", "learnable_scaler"))
        assert any("attn" in name for name in first)
        for other in others:
            assert first.keys() == other.keys()
            assert all(torch.equal(first[name], other[name]) for name in first)
    assert not torch.equal(start("own", 0)["head.weight"], start("own", 1)["head.weight"])


def test_data_order_and_augmentation_are_those_of_the_seed_alone(whole):
    recipes = {
        (each["norm"], each["seed"]): json.loads(
            (whole.path / "cells" / each["folder"] / "training.json").read_text()
        )["recipe"]
        for each in whole.record["cells"]
    }
    for seed in (0, 1):
        one, other = recipes["layer_norm", seed], recipes["dyt", seed]
        assert {name for name in one if one[name] != other[name]} == {"norm"}
        assert one["seed"] == seed


def test_norms_that_draw_their_start_draw_it_by_the_seed(data):
    asked = Asked(None, False, {k: OPTIONS[k] for k in ("model", "model_options", "norm_layers")})
    (variant,) = variants("learnable_scaler")

    def drawn(seed: int) -> torch.Tensor:
        torch.rand(3)  # what else the process draws does not matter
        module = build_network(asked.choice(variant, seed).recipe, 3).module
        return module.state_dict()["blocks.0.norm1.weight"]

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


class Stop(Exception):
    """Ends a comparison as a crash would."""


def stopped_in(cell: str) -> Any:
    def progress(stage, done, total, message=""):
        if cell in message and "epoch 2/2, loss" in message:
            raise Stop

    return progress


def test_stopped_and_continued_is_the_same_table(whole, data, tmp_path):
    again = {"norms": NORMS, "data": data, "out": str(tmp_path / "c"), **OPTIONS}
    with pytest.raises(Stop):
        probe.compare_norms(progress=stopped_in("cell 2 of 4"), **again)
    trained: list[str] = []
    done = probe.compare_norms(
        progress=lambda stage, *rest: trained.append(rest[-1]) if stage == "train" else None,
        **again,
    )
    assert not any("cell 1 of 4" in said for said in trained)  # it was there
    assert not any("cell 2 of 4, dyt, seed 0, epoch 1/2" in said for said in trained)
    assert_same(whole, done)


def test_norms_and_seeds_are_added_to_a_finished_comparison(whole, data, tmp_path):
    out = shutil.copytree(whole.path, tmp_path / "c")
    more = OPTIONS | {"report": False}
    added = probe.compare_norms(norms=f"{NORMS},rms_norm", data=data, out=str(out), **more)
    assert list(added.table["norm"]) == ["layer_norm", "dyt", "rms_norm"]
    assert numbers(added)[0].iloc[:2].equals(numbers(whole)[0])


def test_a_cell_that_fails_is_a_row_with_its_reason(data, tmp_path):
    more = OPTIONS | {"seeds": 1, "epochs": 1}
    broken = "dyt+alpha_init=NaN"
    done = probe.compare_norms(
        norms=f"{broken},layer_norm", data=data, out=str(tmp_path / "c"), **more
    )
    rows = done.table.set_index("norm")
    assert rows.loc["layer_norm", "n"] == 1
    assert rows.loc[broken, "n"] == 0
    assert rows.loc[broken, "failed"] == 1
    assert "is not finite" in rows.loc[broken, "reason"]
    assert "the same command" not in rows.loc[broken, "reason"]
    assert "did not come to its end" in (done.path / "report.html").read_text()


def test_learning_rates_are_chosen_on_training_images_held_back(data, tmp_path):
    more = OPTIONS | {"seeds": 1, "epochs": 1, "report": False}
    del more["lr"]
    done = probe.compare_norms(
        norms="layer_norm", data=data, out=str(tmp_path / "c"), lr_grid=(1e-5, 1e-2),
        held_back=0.25, **more,
    )  # fmt: skip
    grid = pd.read_parquet(done.path / "grid.parquet")
    assert grid["chosen"].sum() == 1
    assert done.cells["lr"].iloc[0] == grid.loc[grid["chosen"], "lr"].iloc[0]
    parts = json.loads((done.path / "grid/layer_norm/lr_0.01/training.json").read_text())["data"]
    assert parts["training"]["chosen"] == 18
    assert parts["validation"]["chosen"] == 6
    assert "train" in parts["validation"]["location"]  # never the validation part


WRONG = {
    "unknown norm": ({"norms": "layer_norm,dit"}, r"norm 'dit' is unknown .did you mean dyt"),
    "class token": (
        {"norms": "layer_norm,dtn,dyt", "model_options": VIT},
        r"^cannot be in this network: dtn: .*class or register token",
    ),
    "its norm": ({"norm": "dyt"}, r"--norm is what the comparison varies: write it in --norms"),
    "reference": ({"reference": "derf"}, r"--reference 'derf' is unknown"),
    "no norms": ({"norms": ""}, r"no norms to compare"),
    "a start": ({"norms": "dyt:mine"}, r"start of dyt 'mine' is unknown"),
    "fitted": ({"norms": "dyt:fitted"}, r"a fitted start needs a trained network"),
    "options": ({"norms": "dyt+alpha"}, r"options of a norm are written NORM\+name=value"),
    "seeds": ({"seeds": 0}, r"--seeds 0: give a number of seeds"),
    "images": ({"train_images": 2}, r"2 images do not show each of 3 classes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_compared_is_told_before_anything_is_written(case, data, tmp_path):
    asked, words = WRONG[case]
    with pytest.raises(UsageError, match=words) as told:
        probe.compare_norms(**{"norms": NORMS, "data": data, "out": str(tmp_path / "c"), **OPTIONS,
                               **asked})  # fmt: skip
    assert "\n" not in str(told.value)
    assert not (tmp_path / "c").exists()


def test_a_folder_of_something_else_is_left_alone(data, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds files and no comparison \(notes.txt\)"):
        probe.compare_norms(norms=NORMS, data=data, out=str(tmp_path), **OPTIONS)


def line_of(data: str, out: Path) -> list[str]:
    model = ",".join(f"{name}={value}" for name, value in TINY.items())
    options = model.replace("False", "false")
    text = (
        f"compare-norms --model {MODEL} --model-options {options} --norms {NORMS} --data {data} "
        f"--out {out} --seeds 2 --epochs 2 --batch-size 8 --crop padded --device cpu --lr 3e-3 "
        "--norm-layers blocks.* --probe-images 0 --no-figures -q"
    )
    return text.split()


def test_the_command_line_gives_the_table(whole, data, capsys):
    assert main(line_of(data, whole.path)) == 0
    out = capsys.readouterr().out
    assert "difference [95 %]" in out
    assert "reference" in out
    assert main([*line_of(data, whole.path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["comparison"] == records(whole.table)
    assert document["status"] == "finished"
    assert main(["report", str(whole.path)]) == 0  # the page anew, from the folder alone


@pytest.mark.slow
def test_final_networks_and_fitted_starts_are_probed(data, tmp_path):
    more = OPTIONS | {"probe_images": 8, "figures": True, "epochs": 1}
    first = probe.compare_norms(norms="layer_norm", data=data, out=str(tmp_path / "a"), **more)
    heads = first.attention.groupby("seed")["distance_px"].mean()
    assert first.table["attention_px_mean"].iloc[0] == pytest.approx(heads.mean())
    weights = str(tmp_path / "a" / "cells" / "layer_norm" / "seed_{seed}" / "model.safetensors")
    done = probe.compare_norms(
        norms="own,dyt:default,dyt:fitted", data=data, out=str(tmp_path / "b"),
        **more | {"weights": weights, "norm_layers": "*"},
    )  # fmt: skip
    assert set(done.layers["norm"]) == {"own", "dyt:default", "dyt:fitted"}
    before = {
        norm: probe.open_training(done.path / "cells" / norm.replace(":", "-") / "seed_0").epochs
        for norm in ("own", "dyt:default", "dyt:fitted")
    }
    losses = {norm: float(epochs["val_loss"].iloc[0]) for norm, epochs in before.items()}
    assert abs(losses["dyt:fitted"] - losses["own"]) < abs(losses["dyt:default"] - losses["own"])
    drawn = {path.stem for path in (done.path / "figures").glob("*.png")}
    assert {"accuracy_by_norm", "alpha_by_norm", "s_curves_by_norm", "attention_by_norm"} <= drawn


@pytest.mark.slow
def test_killed_and_continued_is_the_same_table(whole, data, tmp_path):
    out = tmp_path / "c"
    asked = {"norms": NORMS, "data": data, "out": str(out), **OPTIONS}
    code = "import json, sys, probe; probe.compare_norms(**json.loads(sys.argv[1]))"
    root = str(Path(probe.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    for cell in ("layer_norm/seed_0", "dyt/seed_0", "dyt/seed_1"):
        process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(asked)], env=environment, cwd=TESTS
        )
        while not (out / "cells" / cell / "last" / "state.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert_same(whole, probe.compare_norms(**asked))

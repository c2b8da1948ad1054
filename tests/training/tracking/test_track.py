"""A tracking: the same images at every checkpoint, what does not fit, going on, and what is left
behind.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import probe
from probe.errors import UsageError
from probe.models.loading.weights import fingerprint
from probe.store import open_run, verify_run
from probe.store.schema import ATTENTION
from support.checkpoints import (
    Small,
    at_epoch,
    pixels,
    write_checkpoints,
    write_network,
    write_photographs,
)

pytestmark = pytest.mark.long
QUICK: dict[str, Any] = {"samples": 40, "tail": 20, "figures": False, "report": False}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photographs`, `checkpoints` and one finished tracking, `whole`. Read only."""
    folder = tmp_path_factory.mktemp("tracked")
    write_photographs(folder / "photographs")
    write_checkpoints(folder / "checkpoints")
    write_network(folder)
    run_track(folder, folder / "whole", attention=True, figures=True, report=True)
    return folder


def run_track(folder: Path, out: Path, **options: Any) -> Any:
    checkpoints = options.pop("checkpoints", folder / "checkpoints")
    network = options.pop("model", f"{folder}/net.py:make")
    photographs = options.pop("data", folder / "photographs")
    return probe.track(checkpoints, network, photographs, out=out, **QUICK | options)


def changing(places: Path, tmp_path: Path) -> Path:
    """Checkpoints and a tracking that a test may change."""
    shutil.copytree(places, tmp_path / "copy")
    return tmp_path / "copy"


def stored(folder: Path) -> dict[str, bytes]:
    """The tables and figures of a tracking."""
    names = [*folder.glob("*.parquet"), *folder.glob("*.csv"), *folder.glob("figures/*")]
    return {path.name: path.read_bytes() for path in names}


def test_the_table_says_of_every_checkpoint_what_a_run_of_it_says(
    places: Path, tmp_path: Path
) -> None:
    table = pd.read_parquet(places / "whole" / "track.parquet")
    assert list(table["epoch"].unique()) == [0, 1, 2]
    weights = places / "checkpoints" / "epoch_001.safetensors"
    model = probe.load_model(f"{places}/net.py:make", weights=weights)
    run = probe.capture(model, places / "photographs", out=tmp_path / "run", samples=40, tail=20)
    probe.fit(run, ["tanh"])
    alone, rows = run.alphas(), table[table["epoch"] == 1]
    assert list(rows["layer"]) == ["norm1", "norm2", "norm"]
    assert list(rows["status"]) == list(alone["status"])
    for name in ("alpha", "gain", "gain_low", "r2_ceiling", "input_std", "max_abs_input"):
        np.testing.assert_array_equal(rows[name], alone[name].astype(float), err_msg=name)
    moments = run.moments("norm2")
    [row] = rows[rows["layer"] == "norm2"].to_dict("records")
    assert row["min_input"] == moments["min_input"].min()
    assert row["max_input"] == moments["max_input"].max()


def test_what_is_learned_shows_in_the_numbers(places: Path) -> None:
    table = pd.read_parquet(places / "whole" / "track.parquet").set_index(["layer", "epoch"])
    spread = table["input_std"].unstack()
    assert (spread[1] > 1.2 * spread[0]).all()
    assert (spread[2] > 1.2 * spread[1]).all()


def test_all_runs_hold_the_same_rows_of_the_same_images(places: Path) -> None:
    runs = [open_run(place) for place in sorted((places / "whole" / "runs").iterdir())]
    assert [run.path.name for run in runs] == ["epoch_000", "epoch_001", "epoch_002"]
    rows = [run.samples("norm2", [0], "uniform")[["image", "position"]] for run in runs]
    assert len(rows[0]) == 40
    assert all(rows[0].equals(each) for each in rows[1:])
    assert len({run.manifest["data"]["identity"] for run in runs}) == 1
    assert len({run.manifest["model"]["fingerprint"] for run in runs}) == 3
    assert all(verify_run(run) == [] for run in runs)


def test_csv_and_parquet_hold_the_same_table(places: Path) -> None:
    for name in ("track", "attention"):
        exact = pd.read_parquet(places / "whole" / f"{name}.parquet")
        text = pd.read_csv(places / "whole" / f"{name}.csv")
        assert list(text.columns) == list(exact.columns)
        assert len(text) == len(exact)
        for column in ("alpha", "gain") if name == "track" else ("entropy",):
            np.testing.assert_array_equal(text[column], exact[column])


def test_attention_is_a_row_per_checkpoint_layer_and_head(places: Path) -> None:
    heads = pd.read_parquet(places / "whole" / "attention.parquet")
    assert list(zip(heads["epoch"], heads["head"], strict=True)) == [
        (epoch, head) for epoch in range(3) for head in range(2)
    ]
    run = open_run(places / "whole" / "runs" / "epoch_002")
    np.testing.assert_array_equal(heads[heads["epoch"] == 2]["entropy"], run.attention()["entropy"])


def test_the_figures_and_the_page_are_written(places: Path) -> None:
    drawn = {path.name for path in (places / "whole" / "figures").iterdir()}
    assert {"shape_by_epoch.png", "curves_by_epoch.svg", "gain_by_epoch.png"} <= drawn
    page = (places / "whole" / "report.html").read_text()
    assert "epoch_002 (epoch 2)" in page
    assert page.count("<img ") == sum(name.endswith(".png") for name in drawn)


def test_what_is_finished_is_not_captured_again(places: Path, tmp_path: Path) -> None:
    folder = changing(places, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (folder / "whole" / "runs").rglob("*")}
    again = run_track(folder, folder / "whole", attention=True)
    assert again.captured == ()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert list(again.runs) == ["epoch_000", "epoch_001", "epoch_002"]


def test_a_longer_training_adds_what_is_new(places: Path, tmp_path: Path) -> None:
    folder = changing(places, tmp_path)
    write_checkpoints(folder / "checkpoints", [3])
    again = run_track(folder, folder / "whole", attention=True)
    assert again.captured == ("epoch_003",)
    assert sorted(again.table["epoch"].unique()) == [0, 1, 2, 3]


def test_weights_that_changed_are_captured_anew(places: Path, tmp_path: Path) -> None:
    folder = changing(places, tmp_path)
    save_file(at_epoch(7), folder / "checkpoints" / "epoch_001.safetensors")
    again = run_track(folder, folder / "whole", attention=True)
    assert again.captured == ("epoch_001",)
    fresh = run_track(folder, tmp_path / "fresh", attention=True)
    pd.testing.assert_frame_equal(again.table, fresh.table)


@pytest.mark.parametrize("file", ["alpha.csv", "moments.parquet", "manifest.json"])
def test_a_damaged_run_is_captured_anew(places: Path, tmp_path: Path, file: str) -> None:
    folder = changing(places, tmp_path)
    path = folder / "whole" / "runs" / "epoch_001" / file
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
    again = run_track(folder, folder / "whole", attention=True)
    assert again.captured == ("epoch_001",)
    assert verify_run(folder / "whole" / "runs" / "epoch_001") == []


def test_other_images_are_captured_anew(places: Path, tmp_path: Path) -> None:
    folder = changing(places, tmp_path)
    (folder / "photographs" / "000.png").unlink()
    assert len(run_track(folder, folder / "whole", attention=True).captured) == 3


def test_other_settings_are_refused_unless_all_is_to_be_made_anew(
    places: Path, tmp_path: Path
) -> None:
    folder = changing(places, tmp_path)
    with pytest.raises(UsageError, match=r"holds a tracking with samples 40, not 30: give the"):
        run_track(folder, folder / "whole", attention=True, samples=30)
    again = run_track(folder, folder / "whole", attention=True, samples=30, overwrite=True)
    assert len(again.captured) == 3
    assert again.runs["epoch_000"].manifest["plan"]["samples"] == 30


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import probe

def kill(stage, done, total, message=""):
    if stage == "fit" and "epoch_001" in message and done == 1:
        os.kill(os.getpid(), signal.SIGKILL)

probe.track({checkpoints!r}, {model!r}, {data!r}, out={out!r}, progress=kill, samples=40, tail=20,
            attention=True)
"""


@pytest.mark.slow
def test_killed_halfway_the_same_call_goes_on_to_the_same_bytes(
    places: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    script = KILLED.format(
        tests=str(Path(__file__).parents[2]),
        checkpoints=str(places / "checkpoints"),
        model=f"{places}/net.py:make",
        data=str(places / "photographs"),
        out=str(out),
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]
    assert json.loads((out / "track.json").read_bytes())["status"] == "running"
    again = run_track(places, out, attention=True, figures=True, report=True)
    assert again.captured == ("epoch_001", "epoch_002")
    assert stored(out) == stored(places / "whole")
    assert (out / "report.html").read_bytes() == (places / "whole" / "report.html").read_bytes()
    assert not [path.name for path in (out / "runs").iterdir() if path.name.startswith(".")]


def test_a_checkpoint_that_does_not_fit_is_a_row_and_the_others_go_on(
    places: Path, tmp_path: Path
) -> None:
    folder = changing(places, tmp_path)
    wrong = {**at_epoch(1), "norm2.weight": torch.ones(5)}
    save_file(wrong, folder / "checkpoints" / "epoch_001.safetensors")
    (folder / "checkpoints" / "epoch_002.safetensors").write_bytes(b"broken")
    tracking = run_track(folder, tmp_path / "out", report=True)
    assert list(tracking.runs) == ["epoch_000"]
    assert list(tracking.failed) == ["epoch_001", "epoch_002"]
    failed = tracking.table[tracking.table["status"] == "failed"]
    assert list(failed["epoch"]) == [1, 2]
    assert failed["layer"].isna().all()
    assert "norm2.weight (5,) instead of (8,)" in failed["reason"].iloc[0]
    assert "broken or no checkpoint" in failed["reason"].iloc[1]
    assert "could not be opened" in (tmp_path / "out" / "report.html").read_text()


def test_where_no_checkpoint_fits_nothing_is_written(places: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong").mkdir()
    for epoch in (1, 2):
        save_file({"a": torch.zeros(epoch)}, tmp_path / "wrong" / f"epoch_{epoch}.safetensors")
    with pytest.raises(UsageError, match="none of the 2 checkpoints can be opened; the first: w"):
        run_track(places, tmp_path / "out", checkpoints=tmp_path / "wrong")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm": "dit"}, "norm 'dit' is unknown (did you mean dyt"),
        ({"model": None}, "does not say its model: give it by --model"),
        ({"model": "vit_nonsense"}, "model 'vit_nonsense' is not in timm"),
        ({"families": ["tan"]}, "families 'tan' is unknown (did you mean tanh"),
        ({"num_images": 0}, "--num-images 0: must be at least 1"),
        ({"data": "missing"}, "data 'missing' does not exist"),
        ({"data": iter([torch.zeros(1, 3, 8, 8)])}, "can be read once; every checkpoint needs"),
        ({"layers": "blocks.*"}, "--layers 'blocks.*' matches none of the 3"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_wrong_use_is_one_line(
    places: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as refused:
        run_track(places, tmp_path / "out", **options)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_with_other_files_is_left_alone(places: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other files \(mine.txt\): give a new folder"):
        run_track(places, tmp_path)


def test_a_network_of_ones_own_has_its_weights_and_modes_afterwards(
    places: Path, tmp_path: Path
) -> None:
    module = Small().train()
    module.norm2.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    identity = {name: id(value) for name, value in module.named_parameters()}
    tracking = run_track(places, tmp_path / "out", model=module, transform=pixels)
    named = run_track(places, tmp_path / "named")
    pd.testing.assert_frame_equal(tracking.table, named.table)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert {name: id(value) for name, value in module.named_parameters()} == identity
    assert (module.training, module.norm2.training) == (True, False)


def test_batches_need_no_files(places: Path, tmp_path: Path) -> None:
    batches = [torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(n)) for n in (0, 1)]
    tracking = run_track(places, tmp_path / "out", model=Small(), data=batches)
    assert tracking.runs["epoch_002"].manifest["images_seen"] == 16
    assert set(tracking.table["sources"]) == {16}


def test_a_norm_of_the_zoo_takes_the_place_of_the_networks_own(
    places: Path, tmp_path: Path
) -> None:
    """Also where the training had another number of classes than the architecture."""
    model = probe.load_model("test_vit", weights="random", num_classes=7)
    probe.replace_norms(model, "dyt", "blocks.*")
    with torch.no_grad():
        model.module.blocks[0].norm1.alpha.fill_(0.75)
    save_file(model.module.state_dict(), tmp_path / "epoch_1.safetensors")
    tracking = run_track(
        places,
        tmp_path / "out",
        checkpoints=tmp_path / "epoch_1.safetensors",
        model="test_vit",
        norm="dyt",
        norm_layers="blocks.*",
        num_images=8,
    )
    table = tracking.table.set_index("layer")
    assert table.loc["blocks.0.norm1", "own_alpha"] == 0.75
    assert set(table.loc["blocks.0.norm1":"blocks.0.norm2", "kind"]) == {"dyt"}  # type: ignore[misc]
    assert table.loc["norm", "kind"] == "layer_norm"
    assert tracking.runs["epoch_1"].manifest["model"]["fingerprint"] == fingerprint(model.module)


def test_options_of_a_norm_go_with_a_model_by_its_name(places: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="norm= and model_options= go with a model by its name"):
        run_track(places, tmp_path / "out", model=Small(), transform=pixels, norm="dyt")


def test_a_pickle_that_runs_code_is_refused(places: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return exec, ("raise SystemExit(7)",)

    torch.save({"state_dict": Evil()}, tmp_path / "epoch_1.pth")
    with pytest.raises(UsageError, match="is a pickle that wants to run code"):
        run_track(places, tmp_path / "out", checkpoints=tmp_path / "epoch_1.pth")


def test_a_training_checkpoint_of_another_library_is_read(places: Path, tmp_path: Path) -> None:
    wrapped = {f"module.{name}": value for name, value in at_epoch(2).items()}
    torch.save({"state_dict": wrapped, "epoch": 12, "lr": 0.1}, tmp_path / "checkpoint-2.pth.tar")
    tracking = run_track(places, tmp_path / "out", checkpoints=tmp_path / "checkpoint-2.pth.tar")
    [run] = tracking.runs.values()
    whole = open_run(places / "whole" / "runs" / "epoch_002")
    assert run.manifest["model"]["fingerprint"] == whole.manifest["model"]["fingerprint"]
    assert tracking.unit == "checkpoint"


def test_without_attention_there_is_no_table_of_it(places: Path, tmp_path: Path) -> None:
    tracking = run_track(places, tmp_path / "out")
    assert tracking.attention.empty
    assert not (tmp_path / "out" / f"{ATTENTION}.csv").exists()
    assert not tracking.runs["epoch_000"].has(ATTENTION)


def test_layers_and_families_can_be_chosen(places: Path, tmp_path: Path) -> None:
    tracking = run_track(places, tmp_path / "out", layers="norm?", families=["erf"])
    assert list(tracking.table["layer"].unique()) == ["norm1", "norm2"]
    assert set(tracking.runs["epoch_000"].fits()["family"]) == {"linear", "tanh", "erf"}

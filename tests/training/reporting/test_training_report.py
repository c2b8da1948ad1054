"""The page of a training: from its tables and its record, and of a real one with probed epochs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

import probe
from probe.errors import ProbeError, UsageError
from probe.store import open_run
from probe.training.folder import record_bytes
from probe.training.reporting.page import training_report
from support import training_data
from support.tiny_training import ASKED, MODEL, colour_folders

RECORD = {
    "status": "finished",
    "recipe": {
        "name": "dynamic-tanh",
        "source": "a paper",
        "dataset": "some images",
        "flaws": ["The rate is stepped per batch."],
        "model": "resnet50",
        "norm": "dyt",
        "lr": 0.05,
        "epochs": 30,
        "ema": None,
    },
    "overridden": ["lr"],
    "as_published": False,
    "model": {"name": "timm:resnet50", "parameters": 25_000_000, "classes": 10},
    "data": {"training": {"kind": "folder", "chosen": 50_000}},
    "versions": {"torch": "2.14"},
    "seed": 3,
    "device": "cpu",
}


def folder(path: Path, **changes: Any) -> Path:
    """A training folder of 53 layers and 30 epochs."""
    path.mkdir()
    (path / "training.json").write_bytes(record_bytes(RECORD | changes))
    training_data.epochs_table().to_parquet(path / "epochs.parquet", index=False)
    training_data.norms_table().to_parquet(path / "norms.parquet", index=False)
    return path


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_the_page_shows_the_figures_recipe_flaws_and_epochs(tmp_path: Path) -> None:
    path = folder(tmp_path / "t")
    page = text_of(training_report(path))
    drawn = {file.name for file in (path / "figures").iterdir()}
    names = ("training_curves", "alpha_evolution", "alpha_with_inverse_std", "final_alpha")
    assert drawn == {f"{name}.{e}" for name in (*names, "norm_parameters") for e in ("png", "svg")}
    assert page.count("<img ") == 5
    assert "Known of the source: The rate is stepped per batch." in page
    assert "resnet50 with dyt" in page
    assert "<dt>Set by the user</dt><dd>lr 0.05</dd>" in page
    assert "Top-1 after epoch 30 is 88.90 %, top-5 98.97 %." in page
    assert "One training, seed 3: its spread is not known." in page
    assert page.count("<tr>") >= 31
    assert "The \u03b1 of 53 layers began at 1.00" in page


@pytest.mark.slow
def test_the_same_training_gives_the_same_bytes(tmp_path: Path) -> None:
    pages = [training_report(folder(tmp_path / name)).read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("status", "words"),
    [("running", "has not ended"), ("interrupted", "was interrupted"), ("failed", "failed")],
)
def test_a_training_that_is_not_at_its_end_is_marked(
    tmp_path: Path, status: str, words: str
) -> None:
    page = text_of(training_report(folder(tmp_path / "t", status=status), figures=False))
    assert f"This training {words}: what follows is not its end." in page
    assert "<img " not in page


def test_without_alphas_there_is_no_figure_of_them(tmp_path: Path) -> None:
    path = folder(tmp_path / "t")
    norms = training_data.norms_table(quantities=("gain_mean",))
    norms.to_parquet(path / "norms.parquet", index=False)
    page = text_of(training_report(path))
    assert {file.stem for file in (path / "figures").iterdir()} == {
        "training_curves",
        "norm_parameters",
    }
    assert "\u03b1 of" not in page


def test_texts_of_a_stranger_are_escaped(tmp_path: Path) -> None:
    recipe = RECORD["recipe"] | {"flaws": ["<script>alert(1)</script>"], "source": "<b>"}  # type: ignore[operator]
    page = text_of(training_report(folder(tmp_path / "t", recipe=recipe), figures=False))
    assert "<script>alert" not in page
    assert "&lt;b&gt;" in page


def test_a_folder_without_a_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no training: there is no training\.json"):
        training_report(tmp_path)


def test_a_training_without_an_epoch_says_so(tmp_path: Path) -> None:
    path = folder(tmp_path / "t")
    (path / "epochs.parquet").unlink()
    with pytest.raises(ProbeError, match="has no epochs.parquet yet: no epoch is finished"):
        training_report(path)


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "t")
    (path / "norms.parquet").write_bytes(b"broken")
    with pytest.raises(ProbeError, match=r"norms\.parquet cannot be read"):
        training_report(path)


@pytest.mark.slow
@pytest.mark.long
def test_a_real_training_is_probed_reported_and_tracked(tmp_path: Path) -> None:
    data = str(colour_folders(tmp_path / "data"))
    asked = ASKED | {"report": True}
    out = tmp_path / "t"
    trained = probe.train(
        MODEL, "dyt", data=data, out=str(out), keep_every=1, probe_every=1, **asked
    )
    page = text_of(out / "report.html")
    assert "When its normalization layers become S-shaped" in page
    assert "vit_tiny_patch16_224 with dyt" in page
    for name in ("final_alpha", "shape_by_epoch", "attention_by_epoch"):
        image = Image.open(io.BytesIO((out / "figures" / f"{name}.png").read_bytes()))
        assert image.size[0] > 700
    probed = pd.read_parquet(out / "probes" / "track.parquet")
    assert list(probed["epoch"].unique()) == [0, 1, 2]
    alphas = trained.norms[(trained.norms["quantity"] == "alpha") & (trained.norms["epoch"] == 2)]
    own = probed[probed["epoch"] == 2].set_index("layer")["own_alpha"]
    assert dict(zip(alphas["layer"], alphas["value"], strict=True)) == own.dropna().to_dict()
    # the kept checkpoints say their network, so that tracking needs no name of it
    tracking = probe.track(out, data=f"{data}/val", out=tmp_path / "tracked", figures=False)
    assert list(tracking.runs) == ["epoch_000", "epoch_001", "epoch_002"]
    run = open_run(out / "probes" / "epoch_002")
    tracked = tracking.runs["epoch_002"].manifest["model"]
    assert tracked["fingerprint"] == run.manifest["model"]["fingerprint"]
    assert json.loads((out / "training.json").read_bytes())["status"] == "finished"

"""`report` and `plot` on the folder of a training or a tracking, where a run is expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import probe
from probe.cli.folders import RECORDS
from probe.training.comparing.record import RECORD as COMPARED
from probe.training.folder import RECORD, record_bytes
from probe.training.tracking.record import RECORD as TRACKING
from support import training_data
from support.checkpoints import write_checkpoints, write_network, write_photographs


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training")
    (path / RECORD).write_bytes(record_bytes({"status": "finished", "recipe": {"name": "plain"}}))
    training_data.epochs_table(3).to_parquet(path / "epochs.parquet", index=False)
    training_data.norms_table(training_data.VIT, 3).to_parquet(path / "norms.parquet", index=False)
    return path


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracking")
    probe.track(
        write_checkpoints(folder / "checkpoints", [0, 1]),
        write_network(folder),
        write_photographs(folder / "photographs"),
        out=folder / "out",
        samples=40,
        tail=20,
        figures=False,
        report=False,
    )
    return folder / "out"


def test_folders_are_told_by_the_names_that_their_writers_use() -> None:
    assert RECORDS == (RECORD, TRACKING, COMPARED)


def test_report_writes_the_page_of_a_training(cli: Any, training: Path) -> None:
    assert cli("report", str(training), "-q").out == f"{training}/report.html\n"
    assert "Recipe plain" in (training / "report.html").read_text()


@pytest.mark.long
def test_report_writes_the_page_of_a_tracking(cli: Any, tracking: Path) -> None:
    assert cli("report", str(tracking), "-q").out == f"{tracking}/report.html\n"
    assert "epoch_001 (epoch 1)" in (tracking / "report.html").read_text()
    assert (tracking / "figures" / "gain_by_epoch.svg").exists()


def test_one_page_of_several_is_for_runs(cli: Any, training: Path) -> None:
    assert cli("report", str(training), "--out", "all.html").code == 2
    assert "whose page lies in it: leave --out out" in cli.err


def test_plot_draws_chosen_figures_of_a_training(cli: Any, training: Path, tmp_path: Path) -> None:
    line = ("--kind", "final_alpha", "--format", "pdf", "--out", str(tmp_path / "f"), "-q")
    assert cli("plot", str(training), *line).out == f"{tmp_path}/f/final_alpha.pdf\n"
    assert (tmp_path / "f" / "final_alpha.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.long
def test_plot_draws_chosen_layers_of_a_tracking(cli: Any, tracking: Path, tmp_path: Path) -> None:
    line = ("--kind", "shape_by_epoch", "--format", "svg", "--layers", "norm1", "--out")
    assert cli("plot", str(tracking), *line, str(tmp_path), "-q").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["shape_by_epoch.svg"]
    assert cli("plot", str(tracking), "--layers", "nrm1").code == 2
    assert "matches none of the 3 layers of this tracking (nearest: norm1" in cli.err


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("--kind", "alpha"), "figure 'alpha' is unknown (did you mean final_alpha", 2),
        (("--layers", "blocks.*"), "figures of a training show all its layers; leave it out", 2),
    ],
)
def test_wrong_use_is_one_line(
    cli: Any, training: Path, arguments: tuple[str, ...], words: str, code: int
) -> None:
    assert cli("plot", str(training), *arguments, "-q").code == code
    assert words in cli.err
    assert cli.err.count("\n") == 1


@pytest.mark.long
def test_a_figure_without_data_that_was_asked_for_says_why(cli: Any, tracking: Path) -> None:
    assert cli("plot", str(tracking), "--kind", "attention_by_epoch", "-q").code == 1
    assert "no attention was read; --attention reads it" in cli.err

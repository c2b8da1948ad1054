"""A run that lies where nothing can be written is read, and its results go where the user says; a
job that would need to write there says so before its work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import probe
from probe.errors import ProbeError, UsageError
from probe.jobs.drawing.draw import plot
from probe.jobs.fitting import fit as fitting
from probe.store import open_run, verify_run
from probe.store.staging import aside
from support.captures import Tokens, token_batches


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a read-only file system, with a fitted run and one that is not."""
    place = tmp_path_factory.mktemp("storage")
    source = tmp_path_factory.mktemp("source")
    run = probe.capture(Tokens(), token_batches(), out=source / "captured", samples=64, tail=8)
    shutil.copytree(run.path, source / "fitted")
    probe.fit(source / "fitted")
    # what a killed job has left there stays there, and stands in nobody's way
    aside(source / "fitted").mkdir()
    for command in (["--bind", str(source)], ["-o", "remount,ro,bind", str(source)]):
        if subprocess.run(["mount", *command, str(place)], capture_output=True).returncode:
            subprocess.run(["umount", str(place)], capture_output=True)
            pytest.skip("needs to mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_run_on_read_only_storage_is_read_and_sound(runs: Path) -> None:
    assert verify_run(runs / "fitted") == []
    assert len(open_run(runs / "fitted").alphas()) == 4


def test_results_go_where_the_user_says(runs: Path, tmp_path: Path) -> None:
    run = runs / "fitted"
    assert plot(run, kinds=["extremes"], formats=["svg"], out=tmp_path / "figures")[0].exists()
    assert probe.report(run, out=tmp_path / "page.html")[0].exists()
    assert probe.export_alphas(run, tmp_path / "alpha.safetensors").exists()
    assert len(probe.compare(run, run, out=tmp_path / "compared")) == 2


def test_a_fit_goes_into_a_copy(runs: Path, tmp_path: Path) -> None:
    fits = probe.fit(runs / "captured", out=tmp_path / "copy")
    assert verify_run(tmp_path / "copy") == []
    assert len(open_run(tmp_path / "copy").fits()) == len(fits)
    assert (tmp_path / "copy" / "alpha.csv").read_bytes() == (
        runs / "fitted" / "alpha.csv"
    ).read_bytes()
    with pytest.raises(UsageError, match="already holds a run"):
        probe.fit(runs / "captured", out=tmp_path / "copy")
    plot(tmp_path / "copy", kinds=["extremes"], formats=["svg"])


JOBS: dict[str, Any] = {
    "fit": (lambda run: probe.fit(run), r"`probe-norms fit .*captured --out DIR` fits a copy"),
    "export": (
        lambda run: probe.export_alphas(run, run / "alpha.safetensors"),
        r"`probe-norms fit .*captured --out DIR` fits a copy of it",
    ),
    "report": (
        lambda run: probe.report(run),
        r"`probe-norms fit .*captured --out DIR` fits a copy of it",
    ),
}


@pytest.mark.parametrize("job", JOBS)
def test_a_run_without_fits_says_before_the_work_where_they_can_go(
    job: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "_fit_layers", lambda *_: pytest.fail("the work was begun"))
    work, message = JOBS[job]
    with pytest.raises(
        ProbeError, match=rf"cannot be written \(Read-only file system\): {message}"
    ):
        work(runs / "captured")


def test_figures_and_report_of_a_fitted_run_say_before_the_work_where_they_can_go(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probe.jobs.drawing import draw
    from probe.jobs.reporting import report

    monkeypatch.setattr(draw, "_figure", lambda *_: pytest.fail("a figure was drawn"))
    monkeypatch.setattr(report, "ReportedRun", lambda *_, **__: pytest.fail("a page was made"))
    with pytest.raises(ProbeError, match=r"\(Read-only file system\): give --out DIR"):
        plot(runs / "fitted")
    with pytest.raises(ProbeError, match=r"\(Read-only file system\): give --out FILE"):
        probe.report(runs / "fitted")
    with pytest.raises(ProbeError, match=r"\(Read-only file system\): give another --to FILE"):
        probe.export_alphas(runs / "fitted", runs / "fitted" / "alpha.csv")
    with pytest.raises(ProbeError, match=r"\(Read-only file system\)"):
        probe.report(runs / "fitted", out=runs / "page.html")


def test_a_capture_says_before_the_work_that_there_is_no_place(runs: Path) -> None:
    with pytest.raises(ProbeError, match=r"cannot be written \(Read-only file system\)"):
        probe.capture(Tokens(), iter(()), out=runs / "new")
    assert sorted(os.listdir(runs)) == ["captured", "fitted"]

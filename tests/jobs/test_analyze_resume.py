"""A whole job that was killed after its capture goes on with what is missing, and makes nothing
again that is there and sound.
"""

from __future__ import annotations

import pytest
import torch

import probe.jobs.analyze as whole_job
from probe.jobs.drawing import draw
from probe.jobs.drawing.tables import NothingToDraw
from probe.store import open_run, verify_run
from support.captures import Everything
from support.interrupted import GRID, BrokenOff, contents, tokens, write_images

KINDS = ("s_curves", "families", "alpha_vs_inverse_std")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("analyze_resume") / "images")


@pytest.fixture(autouse=True)
def few_figures(monkeypatch):
    def nothing(tables):
        raise NothingToDraw("not in this test")

    for name in draw.KINDS:
        if name not in KINDS:
            monkeypatch.setitem(draw.KINDS, name, nothing)


def job(images, out, **options):
    torch.manual_seed(1)
    few = {"samples": 40, "tail": 80, "batch_size": 3, **GRID, "transform": tokens}
    return whole_job.analyze(Everything(), images, out=out, **few, **options)


def times_of(run):
    return {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("killed_in", ["fit", "export_alphas", "plot", "write_report"])
def test_a_job_that_broke_off_after_its_capture_ends_with_the_same_files(
    killed_in, images, tmp_path, monkeypatch
):
    expected = contents(job(images, tmp_path / "whole" / "run"))

    def broken(*_, **__):
        raise BrokenOff

    with monkeypatch.context() as patch:
        if killed_in == "plot":
            patch.setattr(draw, "plot", broken)
        elif killed_in == "write_report":
            patch.setattr("probe.jobs.reporting.report.write_report", broken)
        else:
            patch.setattr(whole_job, killed_in, broken)
        with pytest.raises(BrokenOff):
            job(images, tmp_path / "run")
    before = times_of(open_run(tmp_path / "run"))
    run = job(images, tmp_path / "run", resume=True)
    assert contents(run) == expected
    assert verify_run(run) == []
    kept = [path for path, time in times_of(run).items() if before.get(path) == time]
    assert len(kept) >= len(before) - 1  # the manifest alone is another one


def test_what_is_sound_is_not_made_again_and_what_is_damaged_is(images, tmp_path):
    run = job(images, tmp_path / "run")
    before, expected = times_of(run), contents(run)
    job(images, tmp_path / "run", resume=True)
    assert times_of(run) == before
    for name in ("figures/families.png", "alpha.safetensors"):
        (run.path / name).write_bytes(b"damaged")
    again = job(images, tmp_path / "run", resume=True)
    assert contents(again) == expected
    changed = {path.name for path, time in times_of(again).items() if before[path] != time}
    assert changed == {
        "manifest.json",
        "alpha.safetensors",
        "families.png",
        "families.svg",
        "report.html",
    }

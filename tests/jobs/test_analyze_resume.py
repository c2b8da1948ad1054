"""A whole job that was killed after its capture goes on with what is missing, and makes nothing
again that is there and sound.
"""

from __future__ import annotations

import pytest
import torch

from probe.errors import UsageError
from probe.jobs.analyze import analyze
from probe.jobs.drawing import draw
from probe.jobs.drawing.tables import NothingToDraw
from probe.store import open_run, verify_run
from support.captures import Everything
from support.interrupted import (
    GRID,
    BrokenOff,
    break_off,
    contents,
    state_after_each_batch,
    tokens,
    write_images,
)
from support.interrupted import job as capture

KINDS = ("families", "alpha_vs_inverse_std")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("analyze_resume") / "images")


def leave_figures_out(monkeypatch):
    def nothing(tables):
        raise NothingToDraw("not in this test")

    for name in draw.KINDS:
        if name not in KINDS:
            monkeypatch.setitem(draw.KINDS, name, nothing)


@pytest.fixture(autouse=True)
def few_figures(monkeypatch):
    leave_figures_out(monkeypatch)


def job(images, out, **options):
    torch.manual_seed(1)
    few = {"samples": 40, "tail": 80, "batch_size": 3, **GRID, "transform": tokens}
    return analyze(Everything(), images, out=out, **few, **options)


def times_of(run):
    return {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """What the job gives that nobody interrupts; the figures of this module only."""
    with pytest.MonkeyPatch.context() as patch:
        leave_figures_out(patch)
        return contents(job(images, tmp_path_factory.mktemp("whole") / "run"))


STEPS = {
    "fit": "probe.jobs.analyze.fit",
    "export": "probe.jobs.analyze.export_alphas",
    "plot": "probe.jobs.drawing.draw.plot",
    "report": "probe.jobs.reporting.report.write_report",
}


def break_off_in(step, monkeypatch, start):
    """Starts a job that ends when it comes to `step`."""

    def broken(*_, **__):
        raise BrokenOff

    with monkeypatch.context() as patch:
        patch.setattr(STEPS[step], broken)
        with pytest.raises(BrokenOff) as caught:
            start()
    assert caught.value.__notes__ == [
        "the capture is complete: --resume (resume=True) goes on after it"
    ]


@pytest.mark.parametrize("step", STEPS)
def test_a_job_that_broke_off_after_its_capture_ends_with_the_same_files(
    step, images, whole, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    break_off_in(step, monkeypatch, lambda: job(images, out))
    before = times_of(open_run(out))
    run = job(images, out, resume=True)
    assert contents(run) == whole
    assert verify_run(run) == []
    kept = [path for path, time in times_of(run).items() if before.get(path) == time]
    assert len(kept) >= len(before) - 1  # the manifest alone is another one
    assert list(tmp_path.iterdir()) == [out]


def test_the_plain_repetition_goes_on_too_and_says_so(images, whole, tmp_path, monkeypatch):
    out = tmp_path / "run"
    break_off_in("export", monkeypatch, lambda: job(images, out))
    with pytest.raises(UsageError) as caught:
        job(images, out, seed=4)
    assert str(caught.value).startswith(f"{out} was captured with seed 0, not 4: give the same")
    with pytest.warns(UserWarning, match="job is here, whose capture is complete, and goes on"):
        assert contents(job(images, out)) == whole
    with pytest.raises(UsageError, match="already holds a run"):  # nothing is left to go on with
        job(images, out)


@pytest.mark.parametrize("step", ["capture", "report"])
def test_a_job_that_replaces_a_run_goes_on_and_the_old_run_stays_until_its_end(
    step, images, whole, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    old = contents(capture(images, out, seed=5))
    if step == "capture":
        state_after_each_batch(monkeypatch)
        with pytest.raises(BrokenOff):
            job(images, out, overwrite=True, progress=break_off(11))
    else:
        break_off_in(step, monkeypatch, lambda: job(images, out, overwrite=True))
    assert contents(open_run(out)) == old
    with pytest.raises(UsageError, match="would replace this run: --resume .* goes on"):
        job(images, out)
    first = []
    run = job(images, out, resume=True, progress=lambda *report: first.append(report[:2]))
    assert contents(run) == whole
    assert ("capture", 0) not in first
    assert verify_run(run) == []
    assert list(tmp_path.iterdir()) == [out]


def test_a_capture_goes_on_with_the_job_that_would_replace_its_run(
    images, whole, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    capture(images, out, seed=5)
    break_off_in("fit", monkeypatch, lambda: job(images, out, overwrite=True))
    run = capture(images, out, resume=True)
    assert run.manifest["plan"]["seed"] == 0
    assert contents(job(images, out, resume=True)) == whole
    assert list(tmp_path.iterdir()) == [out]


def test_what_a_failed_job_left_goes_when_another_one_takes_its_place(
    images, whole, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    capture(images, out, seed=5)
    break_off_in("fit", monkeypatch, lambda: job(images, out, overwrite=True, seed=6))
    with pytest.warns(UserWarning, match="an interrupted job is here: --overwrite .* starts anew"):
        assert contents(job(images, out, overwrite=True)) == whole
    assert list(tmp_path.iterdir()) == [out]


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
        "report.html",
    }


def test_formats_that_are_asked_for_when_a_job_goes_on_are_drawn_too(images, tmp_path):
    run = job(images, tmp_path / "run", report=False)
    before = contents(run)
    again = job(images, tmp_path / "run", resume=True, report=False, formats=["svg", "png"])
    after = contents(again)
    assert {name for name in after if name not in before} == {f"figures/{k}.svg" for k in KINDS}

"""Jobs on a run at an address: what they leave there is what they leave in a folder, and an upload
that failed goes on without the work.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import probe
from probe.cli.main import main
from probe.errors import ProbeError, UsageError
from probe.jobs.analyze import analyze
from probe.store import open_run, verify_run
from probe.training.comparing.record import comparison_folder
from probe.training.folder import training_folder
from support import interrupted
from support.captures import Tokens, token_batches
from support.interrupted import BrokenOff, break_off, contents, state_after_each_batch
from support.remote_runs import ADDRESS, emptied_memory, on_machine, refusing, stored

FEW = {"samples": 40, "tail": 20}


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_machine(monkeypatch, tmp_path / "cache")
    emptied_memory()


class Counted(interrupted.Everything):
    """Counts its forward passes."""

    passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return super().forward(x)


@pytest.mark.slow
def test_a_whole_job_and_commands_after_it_leave_what_they_leave_in_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = analyze(Tokens(), token_batches(), out=tmp_path / "vit", figures=False, **FEW)
    remote = analyze(Tokens(), token_batches(), out=ADDRESS, figures=False, **FEW)
    for place in (str(local.path), ADDRESS):
        plot = ["plot", place, "--kind", "families", "--format", "svg", "--json", "-q"]
        assert main(plot) == 0
        assert json.loads(capsys.readouterr().out)["figures"] == [f"{place}/figures/families.svg"]
        assert main(["export", place, "--to", f"{place}/alpha.safetensors"]) == 0
        assert capsys.readouterr().out == f"{place}/alpha.safetensors\n"
        assert main(["compare", place, str(local.path), "--out", str(tmp_path / "compared")]) == 0
        assert main(["verify", place]) == 0
        assert capsys.readouterr().out.endswith(f"{place}: sound\n")
    assert contents(open_run(remote.path)) == contents(local)
    assert stored() == {
        path.relative_to(remote.path).as_posix(): path.read_bytes()
        for path in remote.path.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("job", ["capture", pytest.param("whole", marks=pytest.mark.slow)])
def test_after_an_upload_that_failed_the_same_command_makes_nothing_twice(
    job: str, tmp_path: Path
) -> None:
    model, images = Counted(), interrupted.write_images(tmp_path / "images")
    few = {**FEW, "transform": interrupted.tokens, "attention": False}

    def lost(method: str) -> Any:
        return refusing(method, OSError("dead"), lambda name: not name.endswith(".probe-norms"))

    def again(**options: Any) -> probe.Run:
        if job == "whole":
            options |= {"figures": False, "report": False}
        return {"whole": analyze, "capture": probe.capture}[job](
            model, images, out=ADDRESS, **few, **options
        )

    with lost("put_file"), pytest.raises(ProbeError, match="upload failed"):
        again()
    passes = model.passes
    with pytest.warns(UserWarning, match="the upload of an earlier job is complete"):
        again()
    with pytest.raises(UsageError, match=f"{ADDRESS} already holds a run"):
        again()
    assert model.passes == passes
    with lost("pipe_file"), pytest.raises(ProbeError, match="upload failed"):
        again(overwrite=True)
    assert model.passes == 2 * passes
    with pytest.warns(UserWarning, match="the upload of an earlier job is complete"):
        run = again(resume=True)
    assert model.passes == 2 * passes
    assert verify_run(ADDRESS) == []
    assert run.has("fits") == (job == "whole")


def test_an_interrupted_capture_goes_on_at_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = interrupted.write_images(tmp_path / "images")
    state_after_each_batch(monkeypatch)
    with pytest.raises(BrokenOff):
        interrupted.job(images, ADDRESS, progress=break_off(9))
    assert stored() == {}
    with pytest.warns(UserWarning, match=f"^{ADDRESS}: an interrupted capture is here"):
        run = interrupted.job(images, ADDRESS)
    assert contents(run) == contents(interrupted.job(images, tmp_path / "vit"))


def test_a_job_that_resumes_takes_up_what_another_machine_has_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = interrupted.write_images(tmp_path / "images")
    interrupted.job(images, ADDRESS)
    on_machine(monkeypatch, tmp_path / "other")
    model = interrupted.Everything()
    model.forward = None  # type: ignore[method-assign]
    captured = {"samples": 40, "tail": 80, "batch_size": interrupted.BATCH, **interrupted.GRID}
    rest = {"figures": False, "report": False, "transform": interrupted.tokens, "resume": True}
    assert analyze(model, images, out=ADDRESS, **captured, **rest).has("fits")
    assert verify_run(ADDRESS) == []


def test_alphas_and_attention_have_addresses_too() -> None:
    model = interrupted.Everything()
    batches = token_batches(16, positions=12)
    grid = {"grid": (1, 11), "patch_size": 4, "prefix_tokens": 1}
    table = probe.attention_distance(model, batches, out=f"{ADDRESS}-heads", **grid)
    assert open_run(f"{ADDRESS}-heads").attention()["layer"].tolist() == table["layer"].tolist()
    probe.capture(model, batches, out=ADDRESS, **FEW)
    probe.fit(ADDRESS, out=f"{ADDRESS}-fitted")
    assert not open_run(ADDRESS).has("fits")
    done = probe.replace_norms(model, "dyt", layers="sometimes", alphas=f"{ADDRESS}-fitted")
    assert "replaced" in done.report["status"].tolist()


@pytest.mark.parametrize("folder", [training_folder, comparison_folder])
def test_what_is_no_run_is_not_written_to_an_address(folder: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match=f"{ADDRESS} is an address, where runs can be written"):
        folder(ADDRESS, *([False] if folder is training_folder else []))

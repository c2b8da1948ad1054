"""Paths to write to: one line for each that cannot be, before any work; nobody's files are lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probe.errors import ProbeError, UsageError
from probe.store.outputs import output_file, output_folder, output_run

MODEL: dict[str, Any] = {"endings": (".safetensors",), "overwrite": False}
TABLE: dict[str, Any] = {"endings": (".csv", ".json", ".safetensors"), "option": "--to"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a file, a folder, and a figure beside a model that is not there."""
    for name in ("taken.safetensors", "model.png"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "folder.safetensors").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("m.pth", MODEL, "--out m.pth: must end in .safetensors"),
        ("a", TABLE, "--to a: must end in .csv, .json or .safetensors"),
        (
            "folder.safetensors",
            MODEL | {"overwrite": True},
            "--out folder.safetensors is a folder; give a file, such as folder.safetensors/a.b",
        ),
        (
            "taken.safetensors",
            MODEL,
            "--out taken.safetensors exists; give another file, or --overwrite (overwrite=True)",
        ),
        (
            "model.safetensors",
            MODEL | {"beside": (".csv", ".png")},
            "--out model.png exists; give another file, or --overwrite (overwrite=True)",
        ),
    ],
)
def test_a_file_that_cannot_be_written_says_what_to_do(
    folder: Path, path: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        output_file(path, "a.b", **options)
    assert str(caught.value) == message


def test_a_free_file_is_given_back_and_nothing_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    before = sorted(folder.iterdir())
    assert output_file("new/m.safetensors", "a.b", **MODEL) == Path("new/m.safetensors")
    assert output_file("~/a.csv", "a.b", **TABLE) == Path("/home/somebody/a.csv")
    assert output_file("model.safetensors", "a.b", **MODEL) == Path("model.safetensors")
    assert output_file("taken.safetensors", "a.b") == Path("taken.safetensors")
    assert sorted(folder.iterdir()) == before


def test_a_folder_is_made_and_one_that_is_there_is_used(folder: Path) -> None:
    for _ in range(2):
        assert output_folder("new/er") == Path("new/er")
        assert (folder / "new" / "er").is_dir()


@pytest.mark.parametrize("check", [output_folder, output_run])
def test_a_file_is_no_folder(folder: Path, check: Any) -> None:
    with pytest.raises(UsageError, match=r"^taken\.safetensors is a file; give a folder$"):
        check("taken.safetensors")
    assert (folder / "taken.safetensors").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_one_line(folder: Path) -> None:
    with pytest.raises(ProbeError, match="cannot be written") as caught:
        output_folder("taken.safetensors/below")
    assert "\n" not in str(caught.value)


def test_a_run_may_be_written_where_nothing_is(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "empty" / ".DS_Store").touch()
    (folder / "link").symlink_to("empty")
    assert output_run("new") == folder.resolve() / "new"
    assert output_run("link") == folder.resolve() / "empty"
    assert not (folder / "new").exists()


def test_only_a_run_is_overwritten_and_only_when_asked(folder: Path, run_path: Path) -> None:
    with pytest.raises(UsageError, match=r"already holds a run; give another folder, or --over"):
        output_run(run_path)
    assert output_run(run_path, overwrite=True) == run_path.resolve()
    (run_path / "notes.txt").touch()
    for out, message in ((run_path, r"no part of a run \(notes\.txt\)"), (folder, "is no run")):
        with pytest.raises(UsageError, match=message):
            output_run(out, overwrite=True)

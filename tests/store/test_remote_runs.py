"""A run at an address of some storage: the same bytes as on disk, sent and fetched so that nobody
meets half of it, and one line for what goes wrong.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from probe.errors import ProbeError, UsageError
from probe.store import RunWriter, open_run, verify_run
from probe.store.copies import cache_folder
from probe.store.outputs import output_copy, output_file, output_folder
from probe.store.replacement import take_place
from probe.store.results import put
from probe.store.schema import TABLES
from support.manifests import change_manifest
from support.remote_runs import (
    ADDRESS,
    calls_of,
    emptied_memory,
    on_disk,
    on_machine,
    refusing,
    stored,
)

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryFileSystem:
    on_machine(monkeypatch, tmp_path / "cache")
    return emptied_memory()


_runs: dict[str, Path] = {}  # made once


@pytest.fixture
def local(kit: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of these tests on disk, and `other` beside it, which has a layer less. Read only."""
    if not _runs:
        _runs["vit"] = kit.write_run(tmp_path_factory.mktemp("remote_runs") / "vit")
        with RunWriter(_runs["vit"].with_name("other")) as writer:
            kit.fill(writer, kit.populations()[:2])
            writer.finish(kit.manifest(kit.populations()[:2]))
    return _runs["vit"]


@pytest.fixture
def write(local: Path, tmp_path: Path) -> Write:
    """Puts the run to an address as a job does that has made it."""

    def to(address: str = ADDRESS, overwrite: bool = False, name: str = "vit") -> Path:
        out, _ = output_copy(address, overwrite)
        return take(local.with_name(name), out, overwrite)

    return to


def take(run: Path, out: Any, overwrite: bool = False) -> Path:
    with TemporaryDirectory(dir=Path(out).parent) as place:
        take_place(Path(shutil.copytree(run, Path(place) / "run")), out, overwrite)
    return Path(out)


def save_fits(place: Any, alpha: float = 1.0) -> None:
    rows = pd.DataFrame([dict.fromkeys(TABLES["fits"].names)])
    rows = rows.assign(layer="stem/norm", alpha=alpha, depth=0, best=True, tied=True)
    open_run(place).save_table("fits", rows.assign(groups=1, count=1))


@pytest.mark.parametrize("kind", ["memory://runs/vit", "file://{}/a/vit", "dir://b/vit::file://{}"])
def test_it_has_the_bytes_of_a_run_on_disk(
    kind: str, write: Write, local: Path, tmp_path: Path
) -> None:
    address = kind.format(tmp_path)
    write(address)
    save_fits(address)
    local = Path(shutil.copytree(local, tmp_path / "vit"))
    save_fits(local)
    there = stored(address) if "memory" in kind else on_disk(next(tmp_path.glob("[ab]/vit")))
    assert there == on_disk(local)
    assert verify_run(address) == []
    assert open_run(address).moments().equals(open_run(local).moments())


def test_the_manifest_arrives_last_and_a_later_step_sends_what_it_changed(
    monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    arrived = calls_of(monkeypatch, "put_file", "pipe_file")
    write()
    assert [name for name in arrived if name != ".probe-norms"] == [
        *sorted(name for name in stored() if name != "manifest.json"),
        "manifest.json",
    ]
    arrived.clear()
    save_fits(ADDRESS)
    assert arrived == [".probe-norms", "fits.parquet", "manifest.json"]
    assert ".probe-norms" not in stored()


def test_a_failed_upload_goes_on_with_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, write: Write, tmp_path: Path
) -> None:
    lost = OSError("the line is dead")
    with (
        refusing("put_file", lost, lambda name: name.endswith("rows.parquet")),
        pytest.raises(ProbeError) as failed,
    ):
        write()
    (home,) = (tmp_path / "cache").iterdir()
    assert str(failed.value) == (
        f"{ADDRESS}: the upload failed (OSError: the line is dead): what was computed is kept in "
        f"{home}, and the same command goes on with the upload (--resume in place of --overwrite)"
    )
    assert {"moments.parquet", "profile.parquet"} <= set(stored())
    assert "manifest.json" not in stored()
    arrived = calls_of(monkeypatch, "put_file")
    with pytest.warns(UserWarning, match=f"{ADDRESS}: the upload of an earlier job is complete"):
        assert verify_run(ADDRESS) == []
    assert "rows.parquet" in arrived
    assert "moments.parquet" not in arrived


def test_what_an_interrupt_leaves_is_said(write: Write) -> None:
    with refusing("put_file", KeyboardInterrupt()), pytest.raises(KeyboardInterrupt) as stopped:
        write()
    assert "the same command goes on with the upload" in stopped.value.__notes__[0]


def test_a_copy_follows_what_other_machines_change_and_fetches_that_alone(
    monkeypatch: pytest.MonkeyPatch, write: Write, tmp_path: Path
) -> None:
    write()
    save_fits(ADDRESS, alpha=1.0)
    on_machine(monkeypatch, tmp_path / "other")
    assert open_run(ADDRESS).fits()["alpha"].tolist() == [1.0]
    save_fits(ADDRESS, alpha=2.0)
    on_machine(monkeypatch, tmp_path / "cache")
    fetched = calls_of(monkeypatch, "cat_file")
    assert open_run(ADDRESS).fits()["alpha"].tolist() == [2.0]
    assert fetched == ["manifest.json", "fits.parquet"]
    fetched.clear()
    assert open_run(ADDRESS).fits()["alpha"].tolist() == [2.0]
    assert fetched == ["manifest.json"]


def test_a_file_that_the_copy_lost_is_fetched_again(write: Write) -> None:
    write()
    run = open_run(ADDRESS)
    (run.path / "moments.parquet").unlink()
    assert not open_run(ADDRESS).moments().empty


def test_two_machines_do_not_write_over_each_other(
    monkeypatch: pytest.MonkeyPatch, write: Write, tmp_path: Path
) -> None:
    write()
    run = open_run(ADDRESS)
    on_machine(monkeypatch, tmp_path / "other")
    save_fits(ADDRESS, alpha=2.0)
    on_machine(monkeypatch, tmp_path / "cache")
    with pytest.raises(ProbeError, match=f"{ADDRESS} was changed by another job.* do it again"):
        save_fits(run, alpha=3.0)
    assert open_run(ADDRESS).fits()["alpha"].tolist() == [2.0]
    save_fits(ADDRESS, alpha=3.0)
    on_machine(monkeypatch, tmp_path / "other")
    assert open_run(ADDRESS).fits()["alpha"].tolist() == [3.0]


def test_a_capture_does_not_take_the_place_of_one_that_was_faster(
    monkeypatch: pytest.MonkeyPatch, write: Write, local: Path, tmp_path: Path
) -> None:
    late, _ = output_copy(ADDRESS)
    on_machine(monkeypatch, tmp_path / "other")
    write()
    before = stored()
    on_machine(monkeypatch, tmp_path / "cache")
    for again in (lambda: take(local.with_name("other"), late), lambda: open_run(ADDRESS)):
        with pytest.raises(ProbeError, match="holds another run .*is kept in .*: move that folder"):
            again()
        assert stored() == before


def test_an_old_run_stays_until_the_new_one_is_there_and_leaves_nothing(
    write: Write, local: Path
) -> None:
    write()
    save_fits(ADDRESS)
    before = stored()
    with pytest.raises(UsageError, match=f"{ADDRESS} already holds a run; give .*--overwrite"):
        write()
    out, _ = output_copy(ADDRESS, overwrite=True)
    assert stored() == before
    take(local.with_name("other"), out, overwrite=True)
    assert set(before) - set(stored()) == {"fits.parquet", "samples/002-blocks.0.norm1_2.parquet"}
    assert verify_run(ADDRESS) == []


@pytest.mark.parametrize(
    ("files", "overwrite", "line"),
    [
        (["/notes.txt"], True, "is no run and holds other files (notes.txt); give a new or an"),
        (["/manifest.json"], True, "is no run and holds other files (manifest.json); give a new"),
        ([""], False, "is a file; give a folder"),
    ],
)
def test_a_place_that_is_taken_is_refused(
    files: list[str], overwrite: bool, line: str, memory: MemoryFileSystem, write: Write
) -> None:
    for name in files:
        memory.pipe_file(f"/bucket/runs/vit{name}", b"{}")
    with pytest.raises(UsageError) as refused:
        write(overwrite=overwrite)
    assert line in str(refused.value)


def test_overwriting_keeps_files_that_are_no_part_of_a_run(
    memory: MemoryFileSystem, write: Write
) -> None:
    write()
    memory.pipe_file("/bucket/runs/vit/notes.txt", b"mine")
    with pytest.raises(UsageError, match=r"holds files that are no part of a run \(notes.txt\)"):
        write(overwrite=True)


def test_damage_at_the_address_is_named_and_mended(memory: MemoryFileSystem, write: Write) -> None:
    write()
    save_fits(ADDRESS)
    place, whole = "/bucket/runs/vit/fits.parquet", stored()
    memory.pipe_file(place, bytes(len(whole["fits.parquet"])))
    memory.rm_file("/bucket/runs/vit/rows.parquet")
    assert [line.partition(";")[0] for line in verify_run(ADDRESS)] == [
        "fits.parquet: the content changed (sha256 differs from the manifest)",
        "rows.parquet: missing or unreadable (No such file or directory)",
    ]
    with pytest.raises(
        ProbeError, match=f"run {ADDRESS} is damaged: fits.parquet: .*fit {ADDRESS}"
    ):
        open_run(ADDRESS).fits()
    save_fits(ADDRESS)
    memory.pipe_file("/bucket/runs/vit/rows.parquet", whole["rows.parquet"])
    assert stored() == whole
    assert not open_run(ADDRESS).rows().empty
    assert verify_run(ADDRESS) == []


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "samples/../../secret", "a\\b"])
def test_a_hostile_manifest_makes_no_file_outside_of_the_copy(
    name: str, memory: MemoryFileSystem, local: Path, tmp_path: Path
) -> None:
    def rename(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"].pop("moments.parquet")

    local = Path(shutil.copytree(local, tmp_path / "vit"))
    change_manifest(local, rename)
    memory.put(str(local), "/bucket/runs/vit", recursive=True)
    with pytest.raises(ProbeError, match="files names .* which is no path inside of the run"):
        open_run(ADDRESS)
    copies = tmp_path / "cache"
    assert [path.name for path in copies.rglob("*") if path.is_file()] == []


def test_files_that_no_run_has_are_not_fetched(
    memory: MemoryFileSystem, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write()
    odd = ["figures/a/b.png", "notes.txt", ".7-00000000-00000000.results/journal", "a\\b"]
    for name in odd:
        memory.pipe_file(f"/bucket/runs/vit/{name}", b"odd")
    on_machine(monkeypatch, tmp_path / "other")
    run = open_run(ADDRESS)
    assert set(on_disk(run.path)) == set(stored()) - set(odd)


@pytest.mark.parametrize(
    ("address", "line"),
    [
        (
            "s3://bucket/vit",
            "a package that is not installed (Install s3fs to access S3): pip install s3fs",
        ),
        ("nowhere://bucket/vit", "storage 'nowhere' is unknown"),
        ("memory://", "names no folder"),
        ("memory://bucket/nothing", "does not exist; give the address of a run"),
    ],
)
def test_an_address_that_cannot_be_opened_is_one_line(
    address: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UsageError) as refused:
        open_run(address)
    assert str(refused.value).startswith(address)
    assert line in str(refused.value)


def test_storage_that_cannot_be_written_is_said_before_the_work(write: Write) -> None:
    denied = PermissionError("Access Denied")
    with refusing("pipe_file", denied), pytest.raises(ProbeError) as refused:
        output_copy(ADDRESS)
    assert str(refused.value) == (
        f"{ADDRESS} cannot be written (PermissionError: Access Denied): check the address, the "
        "network and the credentials"
    )
    write()
    run = open_run(ADDRESS)
    with (
        refusing("pipe_file", denied),
        pytest.raises(ProbeError, match=f"{ADDRESS}: cannot be written .*: give --out DIR"),
        run.results("give --out DIR"),
    ):
        raise AssertionError
    with refusing("cat_file", denied), pytest.raises(ProbeError, match=f"{ADDRESS} cannot be read"):
        open_run(ADDRESS)


def test_a_result_of_a_run_has_an_address_and_nothing_else_is_written_there(write: Write) -> None:
    write()
    put(output_file(f"{ADDRESS}/alpha.csv", "alpha.csv"), b"layer\n")
    assert stored()["alpha.csv"] == b"layer\n"
    with pytest.raises(UsageError, match="only files of a run lie at an address"):
        output_file(f"{ADDRESS}/other.csv", "alpha.csv")
    with pytest.raises(UsageError, match="is an address, where runs can be written and nothing"):
        output_folder(ADDRESS)


def test_a_run_is_shown_by_its_address(write: Write) -> None:
    write()
    run = open_run(ADDRESS)
    assert repr(run) == f"Run({ADDRESS!r}, 3 layers)"
    assert ADDRESS in run._repr_html_()
    with pytest.raises(
        UsageError, match=f"run {ADDRESS} has no fits yet: `probe-norms fit {ADDRESS}`"
    ):
        run.fits()


def test_copies_are_kept_in_the_cache_of_the_user_or_where_no_other_one_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache/probe-norms/runs"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    private = cache_folder()
    assert private.parent == tmp_path
    assert private.stat().st_mode & 0o777 == 0o700
    private.chmod(0o777)
    with pytest.raises(ProbeError, match="set XDG_CACHE_HOME to a folder"):
        cache_folder()

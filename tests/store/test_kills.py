"""A writer that is killed at any of its operations on files leaves the old files or the new ones,
never some of each; whoever comes next removes what it left, and can go on.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from probe.store import journal as journal_module
from probe.store import open_run, verify_run
from probe.store.journal import settle
from probe.store.outputs import output_run
from probe.store.replacement import whole_run
from probe.store.results import Results
from probe.store.step import Step
from support import faults

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forked processes")


def put_results(run: Path, content: bytes) -> None:
    """As export, plot and report do, in one job."""
    with Results(run) as results:
        for name in ("alpha.json", "alpha.safetensors", "report.html", "figures/lines.svg"):
            results.put(run / name, content + name.encode())


def put_files(folder: Path, content: bytes) -> None:
    """As convert does."""
    with Step(folder) as step:
        for name in ("model.safetensors", "model.csv", "model.svg"):
            step.put(folder / name, content + name.encode())


@pytest.fixture(
    params=[
        "results of a run",
        "files elsewhere",
        "capture again",
        pytest.param("whole job again", marks=pytest.mark.slow),
    ]
)
def case(request: pytest.FixtureRequest, kit) -> tuple[Callable[[Path], None], ...]:
    """Makes a folder with old files; replaces them; opens the folder."""

    def old(folder: Path) -> None:
        if request.param == "files elsewhere":
            put_files(folder, b"old ")
            return
        kit.write_run(folder)
        put_results(folder, b"old ")

    def new(folder: Path) -> None:
        if request.param == "results of a run":
            put_results(folder, b"new ")
        elif request.param == "files elsewhere":
            put_files(folder, b"new ")
        elif request.param == "capture again":
            kit.write_run(folder, overwrite=True)
        else:
            with whole_run(folder, overwrite=True) as place:
                kit.write_run(place)
                put_results(place, b"new ")

    def reopen(folder: Path) -> None:
        if request.param == "files elsewhere":
            settle(folder)
        else:
            assert verify_run(folder) == []

    return old, new, reopen


@pytest.mark.parametrize(
    "operations", [faults.RENAMES, pytest.param(faults.NAMES, marks=pytest.mark.slow)]
)
def test_a_kill_at_any_operation_leaves_the_old_files_or_the_new_ones(
    case: tuple[Callable[[Path], None], ...], operations: Sequence[str], tmp_path: Path
) -> None:
    make_old, make_new, reopen = case
    kept, root = tmp_path / "kept", tmp_path / "work"
    folder = root / "run"
    make_old(kept)
    shutil.copytree(kept, folder)
    count = faults.operations(lambda: make_new(folder), root, operations)
    after = faults.state(folder)
    seen = []
    assert count >= 4
    for number in range(1, count + 1):
        shutil.rmtree(root)
        shutil.copytree(kept, folder)
        code = faults.run_forked(
            lambda: make_new(folder), faults.killed_at(root, number, operations)
        )
        assert code == -signal.SIGKILL
        reopen(folder)
        seen.append(faults.state(folder))
        assert seen[-1] in (faults.state(kept), after), number
        make_new(folder)
        assert faults.state(root) == {f"run/{name}": sha for name, sha in after.items()}, number
    # once the new files are there they stay: later kills never bring the old ones back
    assert seen == sorted(seen, key=lambda state: state == after)
    assert seen[0] == faults.state(kept)


def test_a_killed_job_does_not_stand_in_the_way_of_overwriting(tmp_path: Path, kit) -> None:
    run = kit.write_run(tmp_path / "run")
    count = faults.operations(lambda: put_results(run, b"new "), run)
    for number in range(1, count + 1):
        kill = faults.killed_at(run, number)
        assert faults.run_forked(lambda: put_results(run, b"other "), kill) == -signal.SIGKILL
        assert output_run(run, overwrite=True) == run
    assert verify_run(kit.write_run(run, overwrite=True)) == []
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_reader_that_cannot_write_reads_what_was_committed_before(
    tmp_path: Path, kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery is for whoever can write; it never fails the others."""
    run = kit.write_run(tmp_path / "run")
    faults.run_forked(lambda: put_results(run, b"new "), faults.killed_at(run, 8))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(journal_module.shutil, "rmtree", refuse)
    assert len(open_run(run).moments())


HOSTILE = {
    "out of the folder": {"../../stolen": {"from": "0"}},
    "an absolute path": {"/stolen": {"from": "0"}},
    "deep": {"a/b/c": {"from": "0"}},
    "from elsewhere": {"alpha.json": {"from": "../manifest.json"}},
    "by a link": {"figures/alpha.json": {"from": "0"}},
    "other content": {"alpha.json": {"from": "0", "sha256": "0" * 64}},
    "no mapping": ["alpha.json"],
    "a size that is text": {"alpha.json": {"from": "0", "bytes": "1"}},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_journal_moves_nothing(kind: str, tmp_path: Path, kit) -> None:
    from probe.formatting import json_bytes
    from probe.store import staging
    from probe.store.files import entry_of

    run = kit.write_run(tmp_path / "deep" / "run")
    (tmp_path / "elsewhere").mkdir()
    (run / "figures").symlink_to(tmp_path / "elsewhere")
    place = staging.aside(run)
    place.mkdir()
    (place / "0").write_bytes(b"x")
    files = HOSTILE[kind]
    if isinstance(files, dict):
        files = {name: {**entry_of(b"x"), **entry} for name, entry in files.items()}
    (place / "journal").write_bytes(json_bytes({"files": files}))
    before = {name: sha for name, sha in faults.state(tmp_path).items() if ".results/" not in name}
    open_run(run)
    assert faults.state(tmp_path) == before
    assert not any((tmp_path / "elsewhere").iterdir())

"""RunWriter: a run appears complete or not at all, and nothing of anybody else is deleted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probe.errors import ProbeError, UsageError
from probe.store import RunWriter, open_run, verify_run
from probe.store.files import entry_of
from probe.store.outputs import output_run
from probe.store.schema import TABLES


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_run_holds_its_files_and_no_temporary_ones(tmp_path: Path, kit) -> None:
    path = kit.write_run(tmp_path / "deep" / "er" / "run")
    assert contents(tmp_path / "deep" / "er") == ["run"]
    assert contents(path) == [
        "manifest.json",
        "moments.parquet",
        "profile.parquet",
        "rows.parquet",
        "samples",
    ]
    assert contents(path / "samples") == [
        "000-stem_norm.parquet",
        "001-blocks.0.norm1.parquet",
        "002-blocks.0.norm1_2.parquet",
    ]


def test_the_manifest_lists_rows_and_hashes_and_says_finished(run_path: Path, kit) -> None:
    manifest = json.loads((run_path / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert (
        manifest["files"]["samples/001-blocks.0.norm1.parquet"]["rows"]
        == (kit.samples + 4) * kit.channels + 12
    )
    assert all(len(entry["sha256"]) == 64 for entry in manifest["files"].values())


def test_the_caller_cannot_change_the_status_and_nan_becomes_null(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run") as writer:
        path = writer.finish(
            {
                "status": "half",
                "x": float("nan"),
                "y": np.float32(1.5),
                "z": np.arange(2),
                "p": Path("a"),
                "layers": [],
            }
        )
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert (manifest["x"], manifest["y"], manifest["z"], manifest["p"]) == (None, 1.5, [0, 1], "a")


def test_the_same_run_has_the_same_bytes(tmp_path: Path, kit) -> None:
    a, b = kit.write_run(tmp_path / "a"), kit.write_run(tmp_path / "b")
    files = [path.relative_to(a) for path in a.rglob("*") if path.is_file()]
    assert files
    assert all((a / file).read_bytes() == (b / file).read_bytes() for file in files)


def test_an_unfinished_run_leaves_nothing(tmp_path: Path, kit) -> None:
    with pytest.raises(RuntimeError, match="boom"), RunWriter(tmp_path / "run") as writer:
        kit.fill(writer, kit.populations())
        assert len(contents(tmp_path)) == 1
        raise RuntimeError("boom")
    with RunWriter(tmp_path / "run"):
        pass
    assert contents(tmp_path) == []


def test_the_unfinished_run_is_not_visible_under_its_name(tmp_path: Path, kit) -> None:
    with RunWriter(tmp_path / "run") as writer:
        kit.fill(writer, kit.populations())
        assert not (tmp_path / "run").exists()
        (hidden,) = tmp_path.iterdir()
        with pytest.raises(UsageError, match="unfinished run"):
            open_run(hidden)


def test_samples_may_be_written_from_several_threads(tmp_path: Path, kit) -> None:
    layers = kit.populations()
    with RunWriter(tmp_path / "threads") as writer, ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(
                writer.write_samples,
                p.depth,
                p.name,
                uniform=p.uniform(),
                prefix=p.prefix(),
                tail=p.tail(),
            )
            for p in layers
        ]
        assert [job.result() for job in jobs] == [None] * len(layers)
        path = writer.finish(kit.manifest(layers))
    one = kit.write_run(tmp_path / "one")
    for file in (one / "samples").iterdir():
        assert file.read_bytes() == (path / "samples" / file.name).read_bytes()


def test_an_existing_run_is_refused_at_entry_and_replaced_with_overwrite(
    tmp_path: Path, run_path: Path, kit
) -> None:
    with pytest.raises(UsageError, match="already holds a run.*--overwrite"), RunWriter(run_path):
        pytest.fail("entered")
    with RunWriter(run_path, overwrite=True) as writer:
        # the old one stays while the new one is written
        assert len(open_run(run_path).layers) == 3
        writer.finish({"layers": []})
    assert open_run(run_path).layers.empty
    assert contents(tmp_path) == ["run"]


def test_a_failed_overwrite_keeps_the_old_run(tmp_path: Path, run_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RunWriter(run_path, overwrite=True):
        raise KeyboardInterrupt
    assert verify_run(run_path) == []
    assert contents(tmp_path) == ["run"]


def test_a_rename_that_fails_puts_the_old_run_back(
    tmp_path: Path, run_path: Path, monkeypatch
) -> None:
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name.endswith(".unfinished"):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with (
        pytest.raises(ProbeError, match="cannot be written"),
        RunWriter(run_path, overwrite=True) as writer,
    ):
        writer.finish({"layers": []})
    assert verify_run(run_path) == []
    assert contents(tmp_path) == ["run"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_never_deleted(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(UsageError, match="no run"), RunWriter(tmp_path, overwrite=overwrite):
        pytest.fail("entered")
    assert contents(tmp_path) == ["manifest.json", "thesis.tex"]


def test_a_run_with_foreign_files_is_not_overwritten(run_path: Path) -> None:
    (run_path / "notes.txt").write_text("mine")
    with (
        pytest.raises(UsageError, match=r"no part of a run \(notes\.txt\)"),
        RunWriter(run_path, overwrite=True),
    ):
        pytest.fail("entered")
    assert (run_path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_used_and_a_file_is_refused(tmp_path: Path, kit) -> None:
    (tmp_path / "empty").mkdir()
    assert verify_run(kit.write_run(tmp_path / "empty")) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"), RunWriter(tmp_path / "file"):
        pytest.fail("entered")
    with pytest.raises(ProbeError, match="cannot be written"), RunWriter(tmp_path / "file" / "run"):
        pytest.fail("entered")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ProbeError) as caught, RunWriter(tmp_path / "run"):
        pytest.fail("entered")
    message = str(caught.value)
    assert "\n" not in message
    assert "Permission denied" in message
    assert str(tmp_path / "run") in message


def test_a_run_behind_a_link_is_replaced_and_the_link_stays(
    tmp_path: Path, run_path: Path, kit
) -> None:
    (tmp_path / "link").symlink_to(run_path)
    assert kit.write_run(tmp_path / "link", overwrite=True) == run_path.resolve()
    assert (tmp_path / "link").is_symlink()


def test_a_place_taken_meanwhile_is_not_overwritten(tmp_path: Path, kit) -> None:
    with (
        pytest.raises(UsageError, match="already holds a run"),
        RunWriter(tmp_path / "run") as slow,
    ):
        kit.write_run(tmp_path / "run")
        slow.finish({"layers": []})
    assert verify_run(tmp_path / "run") == []
    assert contents(tmp_path) == ["run"]


def test_file_permissions_are_the_usual_ones(tmp_path: Path, run_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    assert run_path.stat().st_mode == (tmp_path / "usual").stat().st_mode


KILLED = """
import sys, time, numpy as np
from probe.store import RunWriter
values = dict.fromkeys(("input", "normalized", "output"), np.zeros((1, 2)))
rows = {"image": [0], "position": [0], **values}
with RunWriter(sys.argv[1], overwrite=True) as writer:
    writer.write_samples(0, "a", uniform=rows)
    print("ready", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_writer_leaves_is_no_run_and_goes_with_the_next_writer(
    tmp_path: Path, run_path: Path, kit
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(run_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (living,) = (path for path in tmp_path.iterdir() if path.name != "run")
        kit.write_run(tmp_path / "other")
        with RunWriter(run_path, overwrite=True):
            assert living.exists()  # its process runs
        process.send_signal(signal.SIGKILL)
    assert verify_run(run_path) == []
    with pytest.raises(UsageError, match="unfinished run"):
        open_run(living)
    kit.write_run(run_path, overwrite=True)
    assert contents(tmp_path) == ["other", "run"]


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


KILLED_WHILE_SWAPPING = """
import os, signal, sys
from pathlib import Path
from probe.store import RunWriter
rename = Path.rename
def die_once_the_old_run_is_aside(self, target):
    rename(self, target)
    if self == Path(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
Path.rename = die_once_the_old_run_is_aside
with RunWriter(sys.argv[1], overwrite=True) as writer:
    writer.finish({"layers": []})
"""


def test_an_old_run_set_aside_by_a_killed_writer_comes_back(tmp_path: Path, run_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_SWAPPING, run_path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not run_path.exists()
    with pytest.raises(UsageError, match="already holds a run"), RunWriter(run_path):
        pytest.fail("entered")
    assert verify_run(run_path) == []
    assert contents(tmp_path) == ["run"]


def hidden_name(out: Path) -> str:
    """What the folder is called in which a run is written."""
    with RunWriter(out):
        (hidden,) = set(contents(out.parent)) - {out.name}
    return hidden


def test_leftovers_of_other_machines_and_other_runs_are_left_alone(tmp_path: Path, kit) -> None:
    pattern = r"\.run\.(\d+)-([0-9a-f]{8})-[0-9a-f]{8}\.unfinished"
    match = re.fullmatch(pattern, hidden_name(tmp_path / "run"))
    assert match
    assert match[1] == str(os.getpid())
    dead = match[0].replace(match[1], str(dead_pid()), 1)
    foreign = [
        dead.replace(match[2], "00000000"),
        dead.replace(".run.", ".other."),
        match[0],  # its process runs
        ".run.old",
    ]
    for name in (*foreign, dead):
        (tmp_path / name).mkdir()
    kit.write_run(tmp_path / "run")
    assert contents(tmp_path) == sorted([*foreign, "run"])


def test_a_name_as_long_as_the_file_system_allows_works(tmp_path: Path, kit) -> None:
    path = kit.write_run(tmp_path / ("r" * 255))
    assert verify_run(path) == []


def test_hidden_names_of_unfinished_runs_cannot_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="belong to runs that are being written"):
        output_run(tmp_path / hidden_name(tmp_path / "run"))


def test_a_closed_writer_refuses(tmp_path: Path, kit) -> None:
    layers = kit.populations()
    with RunWriter(tmp_path / "run") as writer:
        writer.finish(kit.manifest(layers))
        with pytest.raises(RuntimeError, match="closed"):
            kit.fill(writer, layers)
        with pytest.raises(RuntimeError, match="closed"):
            writer.finish({})


def test_nothing_is_written_twice(tmp_path: Path, kit) -> None:
    layer = kit.populations()[0]
    with RunWriter(tmp_path / "run") as writer:
        writer.write_samples(0, "a", uniform=layer.uniform())
        with pytest.raises(ValueError, match="before"):
            writer.write_samples(0, "b", uniform=layer.uniform())
        writer.write_table("moments", layer.moments())
        with pytest.raises(ValueError, match="before"):
            writer.write_table("moments", layer.moments())


def test_a_table_without_its_columns_or_of_another_name_is_refused(tmp_path: Path, kit) -> None:
    moments = kit.populations()[0].moments()
    with RunWriter(tmp_path / "run") as writer:
        with pytest.raises(ValueError, match="lacks the columns weight, bias"):
            writer.write_table("moments", moments.drop(columns=["weight", "bias"]))
        with pytest.raises(ValueError, match="not 'fits'"):
            writer.write_table("fits", moments)


def test_a_table_without_rows_keeps_its_types(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run") as writer:
        writer.write_table("rows", pd.DataFrame(columns=TABLES["rows"].names))
        path = writer.finish({"layers": []})
    assert pq.read_schema(path / "rows.parquet") == TABLES["rows"]
    assert open_run(path).rows().empty


def test_a_table_may_come_in_parts(tmp_path: Path, kit, monkeypatch) -> None:
    """The same content as at once, whole parts in a row group; what is written is counted right."""
    monkeypatch.setattr("probe.store.encode.TABLE_ROWS", 2 * kit.channels)
    parts = [pa.Table.from_pandas(layer.moments()) for layer in kit.populations()]
    with RunWriter(tmp_path / "run") as writer:
        writer.write_table("moments", iter(parts))
        writer.write_table("rows", iter([]))
        path = writer.finish({"layers": []})
    file = pq.ParquetFile(path / "moments.parquet")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [2 * kit.channels, kit.channels]
    expected = pa.concat_tables(parts).select(TABLES["moments"].names).cast(TABLES["moments"])
    assert file.read().equals(expected)
    assert pq.read_schema(path / "rows.parquet") == TABLES["rows"]
    for name, entry in open_run(path).manifest["files"].items():
        counted = {"rows": pq.read_metadata(path / name).num_rows}
        assert entry == counted | entry_of((path / name).read_bytes())


def test_the_manifest_is_the_last_file(tmp_path: Path, kit, monkeypatch) -> None:
    written: list[str] = []
    opened = Path.open

    def spy(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        written.extend([self.name] if "w" in mode else [])
        return opened(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", spy)
    kit.write_run(tmp_path / "run")
    assert len(written) == len(set(written)) == 7
    assert written[-1] == "manifest.json"


def test_the_working_directory_may_change_while_a_run_is_written(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with RunWriter("run") as writer:
        (tmp_path / "elsewhere").mkdir()
        os.chdir(tmp_path / "elsewhere")
        assert writer.finish({"layers": []}) == (tmp_path / "run").resolve()

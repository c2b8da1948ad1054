"""A full disk is one line that says what, how much is free and what to do; nothing half-written
stays.
"""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probe.errors import ProbeError
from probe.store import RunWriter, open_run, verify_run, write_alphas, write_state
from probe.store import disk as disk_module


@pytest.fixture
def fill_disk(monkeypatch) -> Callable[[int], None]:
    """From now on every write fails, after what fits was written."""

    def fill(code: int = errno.ENOSPC) -> None:
        def fsync(_: int) -> None:
            raise OSError(code, "No space left on device")

        monkeypatch.setattr(disk_module.os, "fsync", fsync)

    return fill


def assert_one_line(error: ProbeError, path: Path) -> None:
    message = str(error)
    assert "\n" not in message
    assert message.startswith(f"{path}: the disk is full (No space left on device; ")
    assert " MB free): free some space" in message
    assert error.exit_code == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("step", ["samples", "table", "manifest"])
def test_a_disk_that_fills_while_a_run_is_written(
    tmp_path: Path, kit, fill_disk, step: str, code: int
) -> None:
    layer = kit.populations()[0]
    with pytest.raises(ProbeError) as caught, RunWriter(tmp_path / "run") as writer:
        writer.write_samples(0, layer.name, uniform=layer.uniform())
        fill_disk(code)
        if step == "samples":
            writer.write_samples(1, layer.name, uniform=layer.uniform())
        elif step == "table":
            writer.write_table("moments", layer.moments())
        else:
            writer.finish({"layers": []})
    assert_one_line(caught.value, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_elsewhere_in_the_block_is_said_too_and_other_errors_pass(
    tmp_path: Path,
) -> None:
    with pytest.raises(ProbeError, match="the disk is full"), RunWriter(tmp_path / "run"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), RunWriter(tmp_path / "run"):
        raise FileNotFoundError("an image of the user")


def test_overwriting_on_a_full_disk_keeps_the_old_run(
    tmp_path: Path, run_path: Path, kit, fill_disk
) -> None:
    with (
        pytest.raises(ProbeError, match="the disk is full"),
        RunWriter(run_path, overwrite=True) as writer,
    ):
        fill_disk()
        kit.fill(writer, kit.populations())
    assert verify_run(run_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def later_writes(run_path: Path, alphas: Any) -> dict[str, Callable[[], Any]]:
    fits = {"layer": ["a"], "channel": [0], "massive": [False]}
    fits |= {
        name: [1.0]
        for name in ("alpha", "gamma", "beta", "r2", "slope", "offset", "extremes", "max_abs_input")
    }
    return {
        "channel_fits.parquet": lambda: open_run(run_path).save_table("channel_fits", fits),
        "alpha.csv": lambda: write_alphas(alphas, run_path / "alpha.csv"),
        "alpha.json": lambda: write_alphas(alphas, run_path / "alpha.json"),
        "alpha.safetensors": lambda: write_state(
            {"a.alpha": np.ones(1)}, {}, run_path / "alpha.safetensors"
        ),
    }


@pytest.mark.parametrize(
    "name", ["channel_fits.parquet", "alpha.csv", "alpha.json", "alpha.safetensors"]
)
def test_files_written_later_keep_their_old_content_on_a_full_disk(
    run_path: Path, alphas, fill_disk, name: str
) -> None:
    write = later_writes(run_path, alphas)[name]
    path = write()
    before, names = path.read_bytes(), sorted(run_path.iterdir())
    fill_disk()
    with pytest.raises(ProbeError) as caught:
        write()
    assert_one_line(caught.value, run_path / name)
    assert path.read_bytes() == before
    assert sorted(run_path.iterdir()) == names


LIMITED = """
import resource, sys, numpy as np
from probe.store import RunWriter
rng = np.random.default_rng(0)
names = ("input", "normalized", "output")
index = np.arange(64)
values = {name: rng.normal(size=(64, 512)) for name in names}
rows = {"image": index, "position": index, **values}
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with RunWriter(sys.argv[1]) as writer:
    writer.write_samples(0, "a", uniform=rows)
"""


def test_a_file_size_limit_of_the_system_ends_in_the_same_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert (
        "ProbeError: " + str(tmp_path / "run") + ": the disk is full (File too large; "
        in done.stderr
    )
    assert list(tmp_path.iterdir()) == []

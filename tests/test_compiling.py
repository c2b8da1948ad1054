"""The compiled kernels are kept where the user can write, and run where that is nowhere."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import pytest

from probe import compiling
from support.ordinary_user import python, read_only_package

USE = """
import numpy as np
from probe.stats import tail_kernels
kept = np.empty(2, np.int64)
order, channel, bound = np.arange(3), np.zeros(3, np.int64), np.zeros(1)
print(tail_kernels.capped(order, np.ones(3), channel, 2, kept, bound), kept.tolist())
"""
RESULT = "2 [0, 1]"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return read_only_package(tmp_path / "installed")


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@pytest.mark.long
def test_an_ordinary_user_without_a_home_compiles_once_from_a_read_only_installation(
    package: Path, temporary: Path
) -> None:
    first = python(USE, package, temporary)
    (folder,) = temporary.glob("probe-norms-kernels-*")
    assert first == [
        RESULT,
        f"compiled kernels are kept in {folder}; for another place {compiling.CHOOSE}",
    ]
    assert folder.stat().st_mode & 0o777 == 0o700
    compiled = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")}
    assert compiled
    assert python(USE, package, temporary) == [RESULT]  # said once
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")} == compiled


@pytest.mark.long
def test_the_folder_that_numba_is_given_is_used(package: Path, temporary: Path) -> None:
    chosen = temporary / "chosen"
    chosen.mkdir()
    chosen.chmod(0o777)
    assert python(USE, package, temporary, NUMBA_CACHE_DIR=str(chosen)) == [RESULT]
    assert list(chosen.rglob("*.nbc"))
    assert [path.name for path in temporary.iterdir()] == ["chosen"]


@pytest.mark.long
def test_kernels_run_where_nothing_can_be_kept(package: Path, temporary: Path) -> None:
    """A folder of another user stands in the place: what lies in it is not run."""
    for user in (65534, os.geteuid()):
        (temporary / f"probe-norms-kernels-{user}").mkdir(mode=0o755, exist_ok=True)
    said = f"compiled kernels are not kept, each start compiles them anew: {compiling.CHOOSE}"
    assert python(USE, package, temporary) == [RESULT, said]
    assert not list(temporary.rglob("*.nbc"))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="users as Unix has them")
def test_a_folder_that_others_can_write_to_or_a_link_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = tmp_path / f"probe-norms-kernels-{os.geteuid()}"
    with caplog.at_level(logging.WARNING):
        assert compiling.private_folder() == place
        assert compiling.private_folder() == place
    assert len(caplog.records) == 1
    place.chmod(0o777)
    assert compiling.private_folder() is None
    place.rmdir()
    place.symlink_to(tmp_path, target_is_directory=True)
    assert compiling.private_folder() is None
    place.unlink()
    place.write_text("a file")
    assert compiling.private_folder() is None


def test_the_usual_place_is_that_of_numba(caplog: pytest.LogCaptureFixture) -> None:
    compiling.cache_folder.cache_clear()
    assert compiling.cache_folder() == compiling.NUMBA
    assert not caplog.records


def test_what_is_compiled_is_announced_once_and_what_is_there_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiling.SETTINGS, "CACHE_DIR", str(tmp_path))  # not that of a run before

    @compiling.compiled()
    def plus(x: int) -> int:
        return x + 1

    said: list[str] = []
    for argument in (1, 1, 1.5):  # the last is another kernel
        with compiling.announced(lambda: said.append("compiles")):
            plus(argument)
            plus(argument)
    assert said == ["compiles", "compiles"]

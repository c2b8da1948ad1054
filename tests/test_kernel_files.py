"""What is kept of a kernel is what was compiled for its signature, whoever else writes there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

from probe import compiling
from probe.kernel_files import without_list

ONES = np.ones(2)
Kernel = Callable[[], Any]


def plus(x: Any) -> Any:
    return x + 1


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kernel:
    """The same kernel, as one process after the other makes it."""
    monkeypatch.setattr(compiling.SETTINGS, "CACHE_DIR", str(tmp_path))
    return lambda: compiling.compiled()(plus)


def loaded(kernel: Any) -> int:
    """How many signatures were not compiled."""
    return sum(kernel.stats.cache_hits.values())


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_processes_that_compile_two_signatures_at_once_leave_both(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One writes all of its own when the other is about to write what it compiled; none has seen a
    file of the other.
    """
    one, other, later = kernel(), kernel(), kernel()
    write, turns = IndexDataCacheFile._save_data, [one]

    def in_turn(files: Any, name: str, data: Any) -> None:
        if turns:
            turns.pop()(1)
        write(files, name, data)

    with monkeypatch.context() as at_once:
        at_once.setattr(IndexDataCacheFile, "_load_index", lambda files: {})
        at_once.setattr(IndexDataCacheFile, "_save_data", in_turn)
        other(ONES)
    assert not turns
    assert later(1) == 2
    assert later(ONES).tolist() == [2, 2]
    assert loaded(later) == 2


def test_a_process_that_is_killed_before_it_has_written_leaves_nothing_wrong(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernel()(ONES)
    with monkeypatch.context() as at_the_end:
        at_the_end.setattr(IndexDataCacheFile, "_save_data", lambda *_: None)
        kernel()(1)
    later = kernel()
    assert later(1) == 2
    assert later(ONES).tolist() == [2, 2]
    assert loaded(later) == 1
    assert len(files(tmp_path)) == 2


def test_one_signature_has_one_file_that_every_later_process_loads(
    kernel: Kernel, tmp_path: Path
) -> None:
    for _ in range(3):
        last = kernel()
        assert last(1) == 2
        assert len(files(tmp_path)) == 1
    assert loaded(last) == 1


@pytest.mark.parametrize("left", [0, 1, 100, -1], ids=["empty", "a byte", "its start", "most"])
def test_a_damaged_file_is_no_file_and_is_replaced(
    left: int, kernel: Kernel, tmp_path: Path
) -> None:
    kernel()(1)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:left])
    again, later = kernel(), kernel()
    assert again(1) == later(1) == 2
    assert (loaded(again), loaded(later)) == (0, 1)
    assert files(tmp_path) == [file]


@pytest.mark.parametrize("fact", ["_version", "_source_stamp"])
def test_what_another_numba_or_other_code_has_left_is_replaced(
    fact: str, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = IndexDataCacheFile.__init__

    def created(files: Any, *args: Any, **named: Any) -> None:
        create(files, *args, **named)
        setattr(files, fact, "another")

    with monkeypatch.context() as before:
        before.setattr(IndexDataCacheFile, "__init__", created)
        kernel()(1)
    (file,) = files(tmp_path)
    again, later = kernel(), kernel()
    assert again(1) == later(1) == 2
    assert (loaded(again), loaded(later)) == (0, 1)
    assert files(tmp_path) == [file]


def test_a_file_under_the_name_of_another_signature_is_not_used(
    kernel: Kernel, tmp_path: Path
) -> None:
    kernel()(1)
    (of_int,) = files(tmp_path)
    kernel()(ONES)
    (of_array,) = {*files(tmp_path)} - {of_int}
    of_array.write_bytes(of_int.read_bytes())
    again = kernel()
    assert again(ONES).tolist() == [2, 2]
    assert loaded(again) == 0


def test_a_kernel_that_is_compiled_anew_forgets_what_was_kept(
    kernel: Kernel, tmp_path: Path
) -> None:
    one = kernel()
    one(1)
    (file,) = files(tmp_path)
    file.write_bytes(b"")
    one.recompile()
    assert file.stat().st_size
    one._cache.flush()
    assert not files(tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        SimpleNamespace(_cache=SimpleNamespace(_cache_file=SimpleNamespace(save=1, load=1))),
        SimpleNamespace(_cache=SimpleNamespace()),
        plus,
    ],
    ids=["files of another kind", "none", "not compiled"],
)
def test_what_a_numba_keeps_that_works_otherwise_is_left_to_it(other: Any) -> None:
    before = getattr(getattr(other, "_cache", None), "_cache_file", None)
    assert without_list(other) is other
    assert getattr(getattr(other, "_cache", None), "_cache_file", None) is before

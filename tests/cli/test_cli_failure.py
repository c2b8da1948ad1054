"""Whatever a job raises becomes one line on stderr and exit code 1 or 2; stdout stays empty."""

from __future__ import annotations

import errno
import sys
import warnings
from typing import Any

import pytest

from probe.cli.failure import explain, one_line
from probe.errors import ProbeError, UsageError


class OutOfMemoryError(RuntimeError):
    """Named like torch's own."""


MEMORY = (
    "out of memory: give a smaller --batch-size, or --device cpu for a model that does not fit "
    "the GPU"
)
INTERNAL = "unexpected KeyError: 'x' (PROBE_DEBUG=1 shows the traceback)"
RAISED: list[tuple[BaseException, int, str]] = [
    (ProbeError("no image could be read"), 1, "no image could be read"),
    (
        UsageError("runs/a holds a run:\n give --overwrite"),
        2,
        "runs/a holds a run: give --overwrite",
    ),
    (KeyboardInterrupt(), 1, "interrupted; nothing unfinished is kept"),
    (MemoryError(), 1, MEMORY),
    (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 1, MEMORY),
    (
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 "
            "bytes"
        ),
        1,
        MEMORY,
    ),
    (RuntimeError("MPS backend out of memory"), 1, MEMORY),
    (
        RuntimeError("unable to write to file </torch_12_34>: No space left on device (28)"),
        1,
        "the worker processes ran out of shared memory: give --workers 0, or a smaller "
        "--batch-size",
    ),
    (
        OSError(errno.ENOSPC, "No space left on device", "runs/a/x.parquet"),
        1,
        "runs/a/x.parquet: the disk is full: free some space or choose another place with --out",
    ),
    (
        OSError(errno.ENOSPC, "No space left on device"),
        1,
        "the disk is full: free some space or choose another place with --out",
    ),
    (
        PermissionError(errno.EACCES, "Permission denied", "runs"),
        1,
        "runs: no permission: choose a place that you may read and write",
    ),
    (
        FileNotFoundError(errno.ENOENT, "No such file or directory", "w.pt"),
        1,
        "w.pt: No such file or directory",
    ),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "Broken pipe"),
    (KeyError("x"), 1, INTERNAL),
    (OSError("odd"), 1, "unexpected OSError: odd (PROBE_DEBUG=1 shows the traceback)"),
    (ValueError("a\nb" * 400), 1, "unexpected ValueError: a ba b"),
]


@pytest.mark.parametrize(
    ("error", "code", "line"), RAISED, ids=[type(error).__name__ for error, *_ in RAISED]
)
def test_every_failure_is_one_line(
    cli: Any, jobs: Any, error: BaseException, code: int, line: str
) -> None:
    jobs.answers["analyze"] = error
    assert cli("-q", "--json").code == code
    assert cli.err.startswith(f"probe-norms: error: {line}")
    assert cli.err.count("\n") == 1
    assert len(cli.err) < 600
    assert cli.out == ""


def test_the_traceback_is_shown_on_request(
    cli: Any, jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.answers["analyze"] = KeyError("x")
    monkeypatch.setenv("PROBE_DEBUG", "1")
    assert cli("-q").code == 1
    assert "Traceback" in cli.err
    assert cli.err.splitlines()[-1] == f"probe-norms: error: {INTERNAL}"
    monkeypatch.setenv("PROBE_DEBUG", "0")
    assert "Traceback" not in cli("-q").err


def test_a_missing_library_is_an_unexpected_failure_not_a_crash(
    cli: Any, jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "probe.jobs.analyze", None)
    assert cli("-q").code == 1
    assert cli.err.startswith("probe-norms: error: unexpected ModuleNotFoundError: ")


def test_a_library_warning_is_one_line_on_stderr(cli: Any, jobs: Any) -> None:
    def warns(*args: Any, **options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old\n  weights", UserWarning, stacklevel=1)
        return jobs.answers["capture"]

    jobs.answers["analyze"] = warns
    assert cli("-q", "--json").code == 0
    assert cli.err == "probe-norms: warning: old weights\n"
    assert cli.json["run"]


def test_a_long_foreign_message_is_cut() -> None:
    assert one_line("a" * 100, 10) == "aaaaaaa..."
    assert one_line(" a \n b ") == "a b"


def test_own_messages_are_never_cut() -> None:
    assert explain(ProbeError("k" * 2000)) == ("k" * 2000, 1)


def test_but_for_what_the_user_gave() -> None:
    for given in ("k" * 5000, "k " * 2500):
        line, _ = explain(ProbeError(f"{given} is unknown; accepted: a, b"))
        assert len(line) <= 2000
        assert line.endswith("is unknown; accepted: a, b")

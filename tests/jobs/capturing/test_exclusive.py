"""A module that is being captured is captured by nobody else meanwhile."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import probe
from probe.errors import UsageError
from support.captures import Everything, token_batches

OPTIONS: dict[str, Any] = {"grid": (1, 11), "prefix_tokens": 1, "patch_size": 1}
BATCHES = token_batches(positions=12)
JOBS: dict[str, Callable[[torch.nn.Module, Any, Path], Any]] = {
    "capture": lambda module, data, out: probe.capture(module, data, out=out),
    "attention": lambda module, data, out: probe.attention_distance(module, data, **OPTIONS),
}


def interrupted_by(job: Callable[[], Any]) -> Iterator[torch.Tensor]:
    """Batches, with a job before the second one."""
    yield BATCHES[0]
    job()
    yield from BATCHES[1:]


@pytest.mark.parametrize("inner", JOBS)
@pytest.mark.parametrize("outer", JOBS)
def test_a_capture_around_another_is_refused_by_name(
    outer: str, inner: str, tmp_path: Path
) -> None:
    module = Everything()
    refused = []

    def nested() -> None:
        with pytest.raises(UsageError, match="Everything is being captured already") as error:
            JOBS[inner](module, BATCHES, tmp_path / "inner")
        refused.append(str(error.value))

    JOBS[outer](module, interrupted_by(nested), tmp_path / "outer")
    assert len(refused) == 1
    assert "\n" not in refused[0]
    assert not (tmp_path / "inner").exists()
    JOBS[inner](module, BATCHES, tmp_path / "inner")  # free again


def test_a_part_of_it_is_refused_too_and_a_copy_is_not(tmp_path: Path) -> None:
    module = Everything()
    another = copy.deepcopy(module)

    def nested() -> None:
        with pytest.raises(UsageError, match="module TwoHeads is being captured already"):
            probe.attention_distance(module.attn, BATCHES, **OPTIONS)
        probe.capture(another, BATCHES, out=tmp_path / "inner")

    probe.capture(module, interrupted_by(nested), out=tmp_path / "outer")
    alone = probe.capture(Everything(), BATCHES, out=tmp_path / "alone")
    for name in ("outer", "inner"):
        run = probe.open_run(tmp_path / name)
        assert run.moments().equals(alone.moments())


@pytest.mark.parametrize("attention", [False, True])
def test_a_copy_that_is_made_meanwhile_may_run_and_records_nothing(
    attention: bool, tmp_path: Path
) -> None:
    module = Everything()
    options = {**OPTIONS, "attention": attention}

    def run_a_copy() -> None:
        with torch.no_grad():
            copy.deepcopy(module)(BATCHES[0] + 7)

    interrupted = probe.capture(module, interrupted_by(run_a_copy), out=tmp_path / "run", **options)
    alone = probe.capture(Everything(), BATCHES, out=tmp_path / "alone", **options)
    assert interrupted.moments().equals(alone.moments())
    if attention:
        assert interrupted.attention().equals(alone.attention())


def test_another_thread_is_refused(tmp_path: Path) -> None:
    module, errors = Everything(), []

    def capture() -> None:
        try:
            probe.capture(module, BATCHES, out=tmp_path / "inner")
        except UsageError as error:
            errors.append(error)

    def other() -> None:
        thread = threading.Thread(target=capture)
        thread.start()
        thread.join()

    probe.capture(module, interrupted_by(other), out=tmp_path / "outer")
    assert len(errors) == 1


def test_an_error_frees_the_module(tmp_path: Path) -> None:
    module = Everything()

    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        probe.capture(module, interrupted_by(broken), out=tmp_path / "run")
    probe.capture(module, BATCHES, out=tmp_path / "run")

"""What an error of another library says becomes part of one line, also where it says nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import safetensors

import probe
from probe.data import BadImage, images, loader, network
from probe.errors import ProbeError, first_line, named_first_line, nearest, unknown
from probe.jobs.folding.folded_file import load_folded
from probe.models.loading.origins.common import constructed
from probe.store.disk import writing
from probe.store.run import Run

SOURCES = sorted(Path(probe.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize(
    ("error", "line", "named"),
    [
        (ValueError("one\ntwo"), "one", "ValueError: one"),
        (ValueError("\n  one\n"), "one", "ValueError: one"),
        (KeyError("a"), "'a'", "KeyError: 'a'"),
        (RuntimeError(), "RuntimeError", "RuntimeError"),
        (OSError(" \n "), "OSError", "OSError"),
    ],
)
def test_the_first_line_of_an_error_survives_an_empty_message(
    error: Exception, line: str, named: str
) -> None:
    assert first_line(error) == line
    assert named_first_line(error) == named


def test_no_other_place_cuts_an_error_to_its_first_line() -> None:
    cut = re.compile(r"str\((error|reason|exception)\)[^\n]*(splitlines|split\(\"\\n)")
    cutting = {path.name for path in SOURCES if cut.search(path.read_text(encoding="utf-8"))}
    assert cutting == {"errors.py", "common.py"}  # a heading, and the first item below it


def refuse(error: Exception) -> Callable[..., Any]:
    def call(*_args: Any, **_options: Any) -> Any:
        raise error

    return call


def write_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with writing("runs/a"):
        raise OSError


def read_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pq, "read_table", refuse(OSError()))
    run = Run(Path("runs/a"), {})
    monkeypatch.setattr(run, "has_file", lambda file: True)
    monkeypatch.setattr(run, "_content", lambda file: b"")
    run.moments()


def read_a_model_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "safe_open", refuse(OSError()))
    load_folded("a.safetensors")


def build_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    constructed("net", refuse(RuntimeError("\n")))


def transform_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    loader._one(lambda: None, refuse(AssertionError()))


@pytest.mark.parametrize(
    ("job", "line"),
    [
        (write_nothing, r"runs/a: cannot be written \(OSError\)"),
        (read_a_table, r"moments.parquet cannot be read \(OSError\)"),
        (read_a_model_file, r"a.safetensors cannot be read as a folded model \(OSError\)"),
        (build_a_model, "model 'net' cannot be built: RuntimeError$"),
        (transform_an_image, "transform failed: AssertionError$"),
    ],
)
def test_a_library_that_says_nothing_is_told_by_the_kind_of_its_error(
    job: Callable[[pytest.MonkeyPatch], None], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((ProbeError, BadImage), match=line) as caught:
        job(monkeypatch)
    assert "\n" not in str(caught.value)


def test_a_server_that_says_nothing_has_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "urlopen", refuse(ConnectionResetError()))
    assert network.unreachable("https://example.org") == "connectionreseterror"


def test_an_unreadable_image_that_says_nothing_has_a_reason_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images.Image, "open", refuse(ValueError()))
    with pytest.raises(BadImage, match="^ValueError$"):
        images.read_image("a.png")


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    assert nearest("tan", ["tanh", "erf"]) == "tanh"
    assert nearest("xyz", ["tanh", "erf"]) == ""
    message = str(unknown("--families", "tan", ["tanh", "erf"]))
    assert message == "--families 'tan' is unknown (did you mean tanh?); known: tanh, erf"

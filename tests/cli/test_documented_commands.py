"""Every command line and every Python call in the documentation is one that the program takes."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from torch import nn

import probe
from probe.cli.failure import CLICK_USAGE
from probe.cli.main import app, execute
from probe.errors import UsageError
from support.fake_runs import FakeRun

ROOT = Path(probe.__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "figures/*.md", "probe/**/*.md")
    for path in ROOT.glob(pattern)
)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:\.venv/bin/)?(?:probe-norms|python -m probe)(?: [^`]*)?)`")
PROGRAM = re.compile(r"^(?:\.venv/bin/)?(?:probe-norms|python -m probe)(?= |$)")


def commands(text: str) -> Iterator[str]:
    """The command lines of a page, without comments; `&&` joins several."""
    shell = (block for language, block in FENCED.findall(text) if language in ("", "sh", "bash"))
    lines = [line for block in shell for line in block.splitlines()]
    for line in [*lines, *INLINE.findall(FENCED.sub("", text))]:
        for part in line.split("#")[0].split("&&"):
            if PROGRAM.match(part.strip()):
                yield PROGRAM.sub("", part.strip()).strip()


def placeholders(command: str) -> bool:
    """Is this the form of a command (`fit RUN`, `[--out DIR]`), not one to type?"""
    return bool(re.search(r"\[|\.\.\.|\b[A-Z]{3,}\b|--model M\b", command))


def python_blocks(text: str) -> Iterator[str]:
    yield from (block for language, block in FENCED.findall(text) if language == "python")


COMMANDS = sorted(
    {
        (path.relative_to(ROOT).as_posix(), command)
        for path in PAGES
        for command in commands(path.read_text(encoding="utf-8"))
        if not placeholders(command)
    }
)
BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(ROOT).as_posix()}-{n}")
    for path in PAGES
    for n, block in enumerate(python_blocks(path.read_text(encoding="utf-8")))
]


def test_the_pages_hold_commands_and_calls() -> None:
    assert {page for page, _ in COMMANDS} >= {"README.md", "CONTRIBUTING.md", "figures/README.md"}
    assert BLOCKS


class Reached(Exception):
    """The job of a command was called, with arguments that it takes."""


class RunWithAttention(FakeRun):
    """A run that has been measured, without a head in its table."""

    def __init__(self) -> None:
        super().__init__()
        self.manifest = {"attention": {"status": "captured"}, **self.manifest}

    def attention(self) -> pd.DataFrame:
        return pd.DataFrame({"layer": [], "head": []})


JOBS = {
    "": "probe.jobs.analyze.analyze",
    "attention": "probe.jobs.capturing.attention.attention_distance",
    "attention of runs": "probe.jobs.drawing.attention.draw_runs",
    "attention of an image": "probe.jobs.drawing.attention.draw_attention",
    "capture": "probe.jobs.capturing.capture.capture",
    "compare": "probe.jobs.drawing.compare.compare",
    "compare-norms": "probe.training.comparing.compare.compare_norms",
    "convert": "probe.jobs.converting.convert.convert",
    "evaluate": "probe.training.evaluate.evaluate",
    "export": "probe.jobs.replacing.export.export_alphas",
    "figures": "probe.jobs.published.published_figures",
    "fit": "probe.jobs.fitting.fit.fit",
    "fold": "probe.jobs.folding.fold_model.fold_model",
    "layers": "probe.models.loading.load.load_model",
    "plot": "probe.jobs.drawing.draw.plot",
    "report": "probe.jobs.reporting.report.report",
    "distill": "probe.training.distilling.distill.distill",
    "track": "probe.training.tracking.track.track",
    "train": "probe.training.train.train",
    "train, its plan": "probe.training.train.planned",
    "train, the recipes": "probe.cli.views.train.list_all",
    "verify": "probe.store.verify_run",
}


def users_module() -> ModuleType:
    """The module of norm classes that the pages speak of."""
    module = ModuleType("mypkg.layers")
    for name in ("MyNorm", "MaxNorm"):
        setattr(module, name, type(name, (nn.Module,), {}))
    module.max_normalized = lambda norm, x: x  # type: ignore[attr-defined]
    return module


@pytest.fixture
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job only looks at its arguments, and every run can be opened."""
    homes = [home.rpartition(".") for home in JOBS.values()]
    # All are imported before the first is replaced: a module that is imported later would keep
    # the replaced function of another under its own name, for all tests that follow.
    modules = [importlib.import_module(place) for place, _, _ in homes]
    for module, (_, _, name) in zip(modules, homes, strict=True):
        signature = inspect.signature(getattr(module, name))

        def reached(*given: Any, _signature: Any = signature, **options: Any) -> None:
            _signature.bind(*given, **options)
            raise Reached

        monkeypatch.setattr(module, name, reached)
    monkeypatch.setattr("probe.store.run.open_run", lambda run: RunWithAttention())
    monkeypatch.setitem(sys.modules, "mypkg.layers", users_module())


@pytest.mark.usefixtures("no_job")
@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_documented_command_reaches_its_job(page: str, command: str) -> None:
    with pytest.raises(Reached):
        execute(shlex.split(command))


@pytest.mark.usefixtures("no_job")
@pytest.mark.parametrize("command", ["fit runs/a --familes tanh", "nonsense", "layers --weight a"])
def test_a_wrong_command_would_be_seen(command: str) -> None:
    with pytest.raises((UsageError, CLICK_USAGE)):
        execute(shlex.split(command))


def test_every_command_is_documented() -> None:
    documented = {command.partition(" ")[0] for _, command in COMMANDS}
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert documented >= commands


@pytest.mark.parametrize("block", BLOCKS)
def test_a_documented_call_names_what_there_is(block: str) -> None:
    """Names of probe exist, and take the arguments that the page gives them."""
    for node in ast.walk(ast.parse(block)):
        if not isinstance(node, ast.Attribute) or ast.unparse(node.value) != "probe":
            continue
        assert hasattr(probe, node.attr), f"probe.{node.attr}"
    for call in ast.walk(ast.parse(block)):
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("probe."):
            function: Any = probe
            for name in ast.unparse(call.func).split(".")[1:]:
                function = getattr(function, name)
            if not any(isinstance(argument, ast.Starred) for argument in call.args):
                named = {word.arg: None for word in call.keywords if word.arg}
                inspect.signature(function).bind(*call.args, **named)

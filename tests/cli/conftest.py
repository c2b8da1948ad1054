"""Jobs that only note how they were called: the command line is tested without any model."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from probe.cli.main import main
from support.fake_runs import FakeRun

JOBS = {
    "probe.jobs.analyze": ["analyze"],
    "probe.jobs.published": ["published_figures"],
    "probe.jobs.capturing.attention": ["attention_distance"],
    "probe.jobs.capturing.capture": ["capture"],
    "probe.jobs.converting.convert": ["convert"],
    "probe.jobs.drawing.attention": ["draw_runs", "draw_attention"],
    "probe.jobs.drawing.compare": ["compare"],
    "probe.jobs.drawing.draw": ["plot"],
    "probe.jobs.fitting.fit": ["fit"],
    "probe.jobs.folding.fold_model": ["fold_model"],
    "probe.jobs.replacing.export": ["export_alphas"],
    "probe.jobs.reporting.report": ["report"],
    "probe.store": ["verify_run"],
    "probe.store.run": ["open_run"],
    "probe.models.loading.load": ["load_model"],
    "probe.models.reading.layers": ["list_norm_layers"],
    "probe.models.reading.unusual": ["affine_errors", "unread_norms"],
    "probe.training.distilling.distill": ["distill"],
    "probe.training.tracking.track": ["track"],
}
# what takes the options that a job takes as `**options`
PASSED_ON = {"analyze": "capture", "distill": "convert", "draw_attention": "load_model"}


class Jobs:
    """Stands in for the modules that do the work: each call is held against the signature of the
    real job, noted, and answered or refused as told.
    """

    def __init__(self) -> None:
        self.calls: list[SimpleNamespace] = []
        self.answers: dict[str, Any] = {}
        self.misfits: list[str] = []
        self.real = {
            name: getattr(importlib.import_module(module), name)
            for module, names in JOBS.items()
            for name in names
        }

    def job(self, name: str) -> Any:
        def run(*args: Any, **options: Any) -> Any:
            self.check(name, args, options)
            self.calls.append(SimpleNamespace(name=name, args=args, options=options))
            answer = self.answers.get(name)
            if isinstance(answer, BaseException):
                raise answer
            return answer(*args, **options) if callable(answer) else answer

        return run

    def check(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Raises TypeError, and remembers it, for a call that the real job would not take."""
        try:
            rest = rest_of(inspect.signature(self.real[name]), args, options)
            if rest and name in PASSED_ON:
                taker = inspect.signature(self.real[PASSED_ON[name]])
                rest = rest_of(taker, (), rest, partial=True)
            if rest:
                raise TypeError(f"nobody takes the options {', '.join(rest)}")
        except TypeError as error:
            self.misfits.append(f"{name}: {error}")
            raise

    def last(self, name: str) -> SimpleNamespace:
        return [call for call in self.calls if call.name == name][-1]


def rest_of(
    signature: inspect.Signature,
    args: tuple[Any, ...],
    options: dict[str, Any],
    partial: bool = False,
) -> dict[str, Any]:
    """What a call leaves to `**options`. Raises TypeError where it does not fit; `partial`: some of
    the arguments may be missing.
    """
    bound = (signature.bind_partial if partial else signature.bind)(*args, **options)
    keywords = inspect.Parameter.VAR_KEYWORD
    names = [name for name, each in signature.parameters.items() if each.kind is keywords]
    return bound.arguments.get(names[0], {}) if names else {}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """Every job that a command calls, replaced; by default each answers with a finished run."""
    fake = Jobs()
    for module, names in JOBS.items():
        stand_in = ModuleType(module)
        for name in names:
            setattr(stand_in, name, fake.job(name))
        monkeypatch.setitem(sys.modules, module, stand_in)
    fake.answers = dict.fromkeys(("analyze", "capture", "open_run"), FakeRun())
    fake.answers |= {"affine_errors": {}, "unread_norms": {}}
    yield fake
    assert fake.misfits == []


class Cli:
    """The program in this process: `cli("fit", "runs/a")`, then `.code`, `.out`, `.err`,
    `.json`.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.code, self.out, self.err = 0, "", ""

    def __call__(self, *arguments: str) -> Cli:
        self.code = main(arguments)
        self.out, self.err = self._capsys.readouterr()
        return self

    @property
    def json(self) -> Any:
        def refuse(text: str) -> None:
            raise AssertionError(f"{text} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    # the processes of pytest-xdist are told the width of the terminal
    monkeypatch.delenv("COLUMNS", raising=False)
    return Cli(capsys)

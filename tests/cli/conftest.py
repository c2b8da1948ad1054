"""Jobs that only note how they were called: the command line is tested without any model."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from probe.cli.main import main
from support.fake_runs import FakeRun


class Jobs:
    """Stands in for the modules that do the work: each call is noted, and answered or refused as
    told.
    """

    def __init__(self) -> None:
        self.calls: list[SimpleNamespace] = []
        self.answers: dict[str, Any] = {}

    def job(self, name: str) -> Any:
        def run(*args: Any, **options: Any) -> Any:
            self.calls.append(SimpleNamespace(name=name, args=args, options=options))
            answer = self.answers.get(name)
            if isinstance(answer, BaseException):
                raise answer
            return answer(*args, **options) if callable(answer) else answer

        return run

    def last(self, name: str) -> SimpleNamespace:
        return [call for call in self.calls if call.name == name][-1]


JOBS = {
    "probe.jobs.analyze": ["analyze"],
    "probe.jobs.capturing.attention": ["attention_distance"],
    "probe.jobs.drawing.attention": ["draw_runs", "draw_attention"],
    "probe.jobs.capturing.capture": ["capture"],
    "probe.jobs.fitting.fit": ["fit"],
    "probe.jobs.drawing.draw": ["plot"],
    "probe.jobs.replacing.export": ["export_alphas"],
    "probe.jobs.drawing.compare": ["compare"],
    "probe.jobs.converting.convert": ["convert"],
    "probe.store": ["verify_run"],
    "probe.store.run": ["open_run"],
    "probe.models.loading.load": ["load_model"],
    "probe.models.reading.layers": ["list_norm_layers"],
    "probe.models.reading.unusual": ["affine_errors", "unread_norms"],
}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """Every job that a command calls, replaced; by default each answers with a finished run."""
    fake = Jobs()
    for module, names in JOBS.items():
        stand_in = ModuleType(module)
        for name in names:
            setattr(stand_in, name, fake.job(name))
        monkeypatch.setitem(sys.modules, module, stand_in)
    run = FakeRun()
    fake.answers = dict.fromkeys(("analyze", "capture", "open_run"), run)
    fake.answers |= {"affine_errors": {}, "unread_norms": {}}
    return fake


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
    monkeypatch.delenv(
        "COLUMNS", raising=False
    )  # the processes of pytest-xdist are told the width of the terminal
    return Cli(capsys)

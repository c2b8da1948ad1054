"""Progress goes to stderr: a bar on a terminal, a plain line now and then elsewhere, nothing with
--quiet.
"""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from probe.cli.progress import BarProgress, PlainProgress, duration, progress_bar, rich_bar


class Clock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.2, "3 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plain_lines_come_every_few_seconds_with_rate_and_time_left() -> None:
    clock, stream = Clock(), io.StringIO()
    say = PlainProgress(stream, every=5.0, clock=clock)
    for done in range(0, 65, 8):
        say("capture", done, 64)
        clock.now += 2
    assert stream.getvalue().splitlines() == [
        "capture: 0/64 images",
        "capture: 24/64 images, 4 images/s, 10 s left",
        "capture: 48/64 images, 4 images/s, 4 s left",
        "capture: 64/64 images, 4 images/s",
    ]


def test_plain_lines_tell_each_stage_at_once_and_its_end_once() -> None:
    stream = io.StringIO()
    say = PlainProgress(stream, every=5.0, clock=Clock())
    say("load", 0, None, "resnet50")
    say("load", 0, None, "weights")
    say("fit", 0, 2)
    say("fit", 1, 2)
    say("fit", 2, 2)
    say("fit", 2, 2)
    assert stream.getvalue().splitlines() == [
        "load: resnet50",
        "fit: 0/2 layers",
        "fit: 2/2 layers",
    ]


def test_an_unknown_total_needs_no_time_left() -> None:
    clock, stream = Clock(), io.StringIO()
    say = PlainProgress(stream, every=1.0, clock=clock)
    say("capture", 0, None)
    clock.now += 4
    say("capture", 8, None)
    assert stream.getvalue().splitlines() == ["capture", "capture: 8 images, 2 images/s"]


def test_work_done_before_the_first_report_counts_for_no_rate() -> None:
    clock, stream = Clock(), io.StringIO()
    say = PlainProgress(stream, every=1.0, clock=clock)
    say("capture", 8, 64)
    clock.now += 2
    say("capture", 16, 64)
    assert stream.getvalue().splitlines() == [
        "capture: 8/64 images",
        "capture: 16/64 images, 4 images/s, 12 s left",
    ]


def test_the_bar_shows_one_stage_with_its_facts() -> None:
    clock = Clock()
    bar = rich_bar(Console(file=io.StringIO(), force_terminal=True, width=100))
    shown = BarProgress(bar, clock)
    shown("load", 0, None, "resnet50")
    assert bar.tasks[0].fields["facts"] == "resnet50"
    shown("capture", 0, 64)
    clock.now += 4
    shown("capture", 32, 64)
    assert [task.description for task in bar.tasks] == ["capture"]
    assert bar.tasks[0].completed == 32
    assert bar.tasks[0].fields["count"] == "32/64 images"
    assert bar.tasks[0].fields["facts"] == "8 images/s, 4 s left"


def test_markup_in_a_message_is_only_text() -> None:
    stream = io.StringIO()
    with rich_bar(Console(file=stream, force_terminal=True, width=100)) as bar:
        BarProgress(bar)("load", 0, None, "[/red] [bold]x")
    assert "[/red] [bold]x" in stream.getvalue()


def test_the_jobs_progress_is_told_on_stderr_and_the_first_stage_at_once(
    cli: Any, jobs: Any
) -> None:
    def job(model: str, data: Any, *, progress: Any, **options: Any) -> Any:
        progress("capture", 64, 64)
        return jobs.answers["capture"]

    jobs.answers["analyze"] = job
    assert cli("--json").code == 0
    assert cli.err.splitlines()[0] == "load: bundled:vit_cifar10"
    assert cli.err.splitlines()[1].startswith("capture: 64/64 images")
    assert cli.json["run"]


def test_quiet_says_nothing(cli: Any, jobs: Any) -> None:
    jobs.answers["analyze"] = lambda *a, progress, **o: (
        progress("capture", 1, 2),
        jobs.answers["capture"],
    )[1]
    assert cli("--quiet", "--json").err == ""


def test_on_a_terminal_the_bar_goes_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar(quiet=False, message="resnet50") as progress:
        assert isinstance(progress, BarProgress)
        progress("capture", 8, 64)
    out, err = capsys.readouterr()
    assert out == ""
    assert "capture" in err

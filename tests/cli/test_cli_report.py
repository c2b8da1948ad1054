"""`report` opens its runs, hands them to the job and lists the pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def reporting(jobs: Any) -> Any:
    jobs.answers["report"] = [Path("runs/a/report.html")]
    jobs.answers["open_run"] = lambda path: f"opened {path}"
    return jobs


def test_each_run_is_opened_once_and_the_pages_are_listed(cli: Any, reporting: Any) -> None:
    assert cli("report", "runs/a", "runs/b", "runs/a", "-q").out == "runs/a/report.html\n"
    call = reporting.last("report")
    assert call.args == (["opened runs/a", "opened runs/b"],)
    assert call.options["out"] is None


def test_out_is_the_file_of_one_page(cli: Any, reporting: Any) -> None:
    found = cli("report", "runs/a", "--out", "all.html", "--json", "-q").json
    assert reporting.last("report").options["out"] == "all.html"
    assert found == {"runs": ["runs/a"], "reports": ["runs/a/report.html"]}


def test_without_a_run_it_is_a_usage_error(cli: Any, reporting: Any) -> None:
    assert cli("report").code == 2
    assert "RUN" in cli.err

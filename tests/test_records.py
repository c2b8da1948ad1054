"""The records that travel between the parts."""

from __future__ import annotations

import pickle

import pytest

from probe.errors import first_line
from probe.records import Status


@pytest.mark.parametrize("status", Status)
def test_a_status_is_its_name_and_says_what_it_means(status: Status) -> None:
    assert Status(status.value) is status
    assert f"{status}" == status.value
    assert pickle.loads(pickle.dumps(status)) is status
    assert status.meaning
    assert "\n" not in status.meaning


def test_only_layers_with_a_curve_or_a_line_are_fitted() -> None:
    fitted = {status.value for status in Status if status.fitted}
    assert fitted == {"curved", "linear", "affine", "superlinear", "step"}
    assert {status for status in Status if status.shaped} == {Status.CURVED, Status.STEP}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one\n"), "one"),
        (KeyError("a"), "'a'"),
        (RuntimeError(), "RuntimeError"),
        (OSError(" \n "), "OSError"),
    ],
)
def test_the_first_line_of_an_error_survives_an_empty_message(error: Exception, line: str) -> None:
    assert first_line(error) == line

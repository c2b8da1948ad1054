"""Values as text: one number, one R2, one percentage, one JSON for terminal, page and figures."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from probe.formatting import (
    json_bytes,
    json_text,
    number,
    percent,
    plain,
    r_squared,
    records,
    thousands,
    typeset,
    whole,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.069123, "0.0691"),
        (1.23456, "1.23"),
        (0.99999, "1.00"),
        (9.996, "10.0"),
        (51.2345, "51.2"),
        (123.4, "123"),
        (999.9, "1000"),
        (1234.5, "1234"),
        (1234567.0, "1.2e6"),
        (0.000512, "0.000512"),
        (1.2e-5, "1.2e-5"),
        (5e-5, "5e-5"),
        (-0.5, "-0.500"),
        (0.0, "0.00"),
        (2, "2.00"),
        (np.float32(100), "100"),
        (float("-inf"), "-inf"),
        (None, "-"),
        (float("nan"), "-"),
        (pd.NA, "-"),
    ],
)
def test_numbers_have_three_digits(value: Any, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.8526, "0.853"), (0.43, "0.430"), (-0.1, "-0.100"), (None, "-")]
)
def test_r2_is_rounded_as_any_number_is(value: Any, text: str) -> None:
    assert r_squared(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9994, "0.999"),
        (0.9996, ">0.999"),
        (1 - 1e-6, ">0.999"),
        (1 - 1e-12, "1.000"),
        (1.0, "1.000"),
        (-0.0001, "0.000"),
    ],
)
def test_only_an_exact_fit_reads_as_exact(value: float, text: str) -> None:
    assert r_squared(value) == text
    assert r_squared(0.996, 2) == ">0.99"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (0.00012345, "0.012"),
        (0.0104, "1.0"),
        (0.0994, "9.9"),
        (0.0996, "10.0"),
        (0.674, "67.4"),
        (0.9996, ">99.9"),
        (1.0, "100.0"),
        (1.5, "150.0"),
        (None, "-"),
    ],
)
def test_shares_are_per_cent_and_only_all_is_a_hundred(value: Any, text: str) -> None:
    assert percent(value) == text


def test_large_counts_have_commas_and_figures_a_real_minus() -> None:
    assert (whole(2048.0), whole(None)) == ("2048", "-")
    assert (thousands(532480.0), thousands(None)) == ("532,480", "-")
    assert typeset(number(-0.5)) == "\u22120.500"


def test_values_become_json() -> None:
    frame = pd.DataFrame(
        {
            "a": [1, 2],
            "b": [0.5, float("nan")],
            "c": pd.array([None, 3], dtype="Int64"),
            "d": ["x", None],
        }
    )
    assert records(frame) == [
        {"a": 1, "b": 0.5, "c": None, "d": "x"},
        {"a": 2, "b": None, "c": 3, "d": None},
    ]
    assert plain({"a": float("inf"), "b": (1, frame["a"].to_numpy())}) == {
        "a": None,
        "b": [1, [1, 2]],
    }


def test_a_file_is_ascii_and_a_page_keeps_its_letters() -> None:
    value = {"name": "schön", "r2": float("nan"), "of": {"b": 1, "a": 2}}
    assert json_bytes(value).isascii()
    assert json_bytes(value).endswith(b"}\n")
    assert "schön" in json_text(value)
    expected = {"name": "schön", "r2": None, "of": {"b": 1, "a": 2}}
    assert json.loads(json_bytes(value)) == json.loads(json_text(value)) == expected

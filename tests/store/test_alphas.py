"""The exported alphas: exact, deterministic, readable by others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from safetensors import safe_open

from probe.errors import UsageError
from probe.store import write_alphas, write_state
from probe.store.schema import ALPHAS

STATE = {
    "b.weight": np.arange(3, dtype=np.float32),
    "a.alpha": np.float32([0.5]),
    "b.bias": np.ones((2, 4), np.float32)[:, ::2],
}


def test_csv_has_one_row_per_layer_and_empty_cells_for_null(
    tmp_path: Path, alphas: pd.DataFrame
) -> None:
    lines = write_alphas(alphas, tmp_path / "alpha.csv").read_text().splitlines()
    assert lines[0] == ",".join(ALPHAS)
    assert lines[1].startswith("null,0,layer_norm,3,0.3333333333333333,,")
    assert lines[2].startswith("1.5,1,layer_norm,3,,")
    assert len(lines) == 4


def test_json_has_null_where_python_has_nan_or_infinity(
    tmp_path: Path, alphas: pd.DataFrame
) -> None:
    text = write_alphas(alphas, tmp_path / "alpha.json").read_text()
    rows = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [row["layer"] for row in rows] == ["null", "1.5", "NaN"]
    assert [row["alpha"] for row in rows] == [1 / 3, None, None]
    assert [row["sigma_cv"] for row in rows] == [None, 1e-300, 0.1 + 0.2]
    assert list(rows[0]) == list(ALPHAS)


def test_json_takes_the_nulls_of_every_pandas_type(tmp_path: Path, alphas: pd.DataFrame) -> None:
    mixed = alphas.assign(integer=pd.array([1, None, 2], dtype="Int64"), text=["a", None, "b"])
    rows = json.loads(write_alphas(mixed, tmp_path / "alpha.json").read_text())
    assert [(row["integer"], row["text"]) for row in rows] == [(1, "a"), (None, None), (2, "b")]


def test_columns_are_ordered_and_missing_ones_are_refused(
    tmp_path: Path, alphas: pd.DataFrame
) -> None:
    mixed = alphas[alphas.columns[::-1]].assign(note="x")
    assert write_alphas(mixed, tmp_path / "a.csv").read_text().splitlines()[0] == ",".join(
        [*ALPHAS, "note"]
    )
    with pytest.raises(ValueError, match="lacks the columns gamma, count"):
        write_alphas(alphas.drop(columns=["gamma", "count"]), tmp_path / "b.csv")
    assert not (tmp_path / "b.csv").exists()


@pytest.mark.parametrize("name", ["alpha.xlsx", "alpha"])
def test_another_ending_is_refused_with_the_known_ones(
    tmp_path: Path, alphas: pd.DataFrame, name: str
) -> None:
    with pytest.raises(UsageError, match=r"alphas .*: must end in \.csv or \.json"):
        write_alphas(alphas, tmp_path / name)


def test_state_is_read_back_by_safetensors(tmp_path: Path) -> None:
    path = write_state(
        STATE,
        {"families": ["tanh"], "model": "toy", "n": 3},
        tmp_path / "new" / "alpha.safetensors",
    )
    loaded = safetensors.numpy.load_file(path)
    assert sorted(loaded) == sorted(STATE)
    for name, array in STATE.items():
        np.testing.assert_array_equal(loaded[name], array)
    with safe_open(path, "numpy") as file:
        assert file.metadata() == {"families": '[\n "tanh"\n]', "model": "toy", "n": "3"}


def test_scalars_stay_scalars(tmp_path: Path) -> None:
    path = write_state({"a": np.float32(2.5)}, {}, tmp_path / "a.safetensors")
    assert safetensors.numpy.load_file(path)["a"].shape == ()


def test_the_same_alphas_have_the_same_bytes(tmp_path: Path, alphas: pd.DataFrame) -> None:
    metadata = {name: name for name in "abcdefgh"}  # the library alone writes them in random order
    for name, write in {
        "a.csv": lambda path: write_alphas(alphas, path),
        "a.json": lambda path: write_alphas(alphas, path),
        "a.safetensors": lambda path: write_state(dict(reversed(STATE.items())), metadata, path),
    }.items():
        assert len({write(tmp_path / f"{i}{name}").read_bytes() for i in range(5)}) == 1


def test_the_header_of_the_state_is_aligned(tmp_path: Path) -> None:
    data = write_state(STATE, {"x": "é"}, tmp_path / "a.safetensors").read_bytes()
    assert int.from_bytes(data[:8], "little") % 8 == 0

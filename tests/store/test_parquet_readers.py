"""A run's samples are a plain folder of Parquet files for pandas, Polars and DuckDB."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest

QUERY = (
    "select layer, channel, stratum, count(*) n, avg(input) mean from '{}' group by all order by "
    "all"
)


@pytest.fixture
def expected(run_path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(run_path / "samples")
    frame = frame.astype({"layer": "str", "stratum": "str"})
    return (
        frame.groupby(["layer", "channel", "stratum"])
        .agg(n=("input", "size"), mean=("input", "mean"))
        .reset_index()
    )


def test_pandas_reads_the_folder(expected: pd.DataFrame, kit) -> None:
    assert set(expected["layer"]) == set(kit.names)
    assert (expected.loc[expected["stratum"] == "uniform", "n"] == kit.samples).all()


def test_polars_reads_the_folder(run_path: Path, expected: pd.DataFrame) -> None:
    lazy = pl.scan_parquet(run_path / "samples").with_columns(
        pl.col("layer", "stratum").cast(pl.String)
    )
    got = (
        lazy.group_by("layer", "channel", "stratum")
        .agg(n=pl.len(), mean=pl.col("input").mean())
        .sort("layer", "channel", "stratum")
    )
    pd.testing.assert_frame_equal(
        plain(got.collect().to_dict(as_series=False)), plain(expected), check_dtype=False, rtol=1e-5
    )


def test_polars_filters_by_layer_name(run_path: Path, kit) -> None:
    lazy = pl.scan_parquet(run_path / "samples").filter(pl.col("layer") == kit.names[1])
    assert lazy.select(pl.len()).collect().item() == (kit.samples + 4) * kit.channels + 12


def test_duckdb_reads_the_folder(run_path: Path, expected: pd.DataFrame) -> None:
    with duckdb.connect() as connection:
        cursor = connection.execute(QUERY.format(run_path / "samples" / "*.parquet"))
        got = dict(
            zip(
                [column[0] for column in cursor.description],
                zip(*cursor.fetchall(), strict=True),
                strict=True,
            )
        )
    pd.testing.assert_frame_equal(plain(got), plain(expected), check_dtype=False, rtol=1e-5)


def plain(data) -> pd.DataFrame:
    frame = pd.DataFrame({name: list(values) for name, values in dict(data).items()})
    return frame.sort_values(["layer", "channel", "stratum"], ignore_index=True)

"""The bytes of the sample files: order, encodings, row groups, determinism, size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probe.store.encode import write_samples
from probe.store.sample_layout import GROUP_ROWS, SQUARE, sample_groups
from probe.store.schema import SAMPLE_SCHEMA, VALUES, sample_name


def rows(n: int, channels: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(size=(n, channels)).astype(np.float32) for name in VALUES}
    return {"image": rng.integers(0, 9, n), "position": rng.permutation(n), **values}


def elements(n: int, channels: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    indices = {name: rng.integers(0, channels, n) for name in ("image", "position", "channel")}
    return {**indices, **{name: rng.normal(size=n) for name in VALUES}}


def sample_bytes(layer: str, *parts: Any) -> tuple[int, pa.Buffer]:
    """Rows and bytes of what is written for one layer."""
    sink = pa.BufferOutputStream()
    return write_samples(sink, layer, *parts), sink.getvalue()


def read(buffer: Any) -> pd.DataFrame:
    return pq.read_table(buffer).to_pandas()


def long_form(stratum: str, part: dict[str, Any]) -> pd.DataFrame:
    """The slow and obvious way to lay out rows (N, C) as one line per element."""
    return pd.DataFrame(
        [
            (
                part["image"][n],
                part["position"][n],
                c,
                *(part[name][n, c] for name in VALUES),
                stratum,
            )
            for n in range(len(part["image"]))
            for c in range(part["input"].shape[1])
        ],
        columns=["image", "position", "channel", *VALUES, "stratum"],
    )


@pytest.mark.parametrize("tail_size", [0, 1, 40])
@pytest.mark.parametrize(
    ("uniform_rows", "prefix_rows", "channels"), [(7, 0, 5), (7, 3, 5), (2 * SQUARE + 1, 3, 40)]
)
def test_every_element_is_kept_and_sorted_by_channel_stratum_image_position(
    tail_size: int,
    uniform_rows: int,
    prefix_rows: int,
    channels: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("probe.store.sample_layout.GROUP_ROWS", 1000)
    uniform, prefix = rows(uniform_rows, channels), rows(prefix_rows, channels, seed=2)
    tail = elements(tail_size, channels)
    count, buffer = sample_bytes("a", uniform, prefix, tail)
    expected = pd.concat(
        [
            long_form("uniform", uniform),
            long_form("prefix", prefix),
            pd.DataFrame(tail).assign(stratum="tail"),
        ]
    )
    rank = expected["stratum"].map({"uniform": 0, "prefix": 1, "tail": 2})
    keys = ["channel", "rank", "image", "position", "input"]
    expected = expected.assign(rank=rank).sort_values(keys, ignore_index=True)[
        ["image", "position", "channel", *VALUES, "stratum"]
    ]
    got = read(buffer)
    assert count == len(got) == (uniform_rows + prefix_rows) * channels + tail_size
    assert set(got["layer"]) == {"a"}
    got = got.drop(columns="layer").astype({"stratum": "str"})
    pd.testing.assert_frame_equal(got, expected.astype({"stratum": "str"}), check_dtype=False)


def test_columns_have_the_promised_types_and_encodings() -> None:
    _, buffer = sample_bytes("a", rows(20, 5), None, None)
    assert pq.read_schema(buffer).remove_metadata() == SAMPLE_SCHEMA
    group = pq.ParquetFile(buffer).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert "PLAIN" in columns["channel"].encodings
    assert "RLE_DICTIONARY" not in columns["channel"].encodings
    for name in VALUES:
        assert "BYTE_STREAM_SPLIT" in columns[name].encodings


def test_a_reader_can_skip_by_layer_and_channel() -> None:
    _, buffer = sample_bytes("a", rows(20, 5), None, None)
    group = pq.ParquetFile(buffer).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    ends = {name: each.statistics for name, each in columns.items() if each.is_stats_set}
    assert {name: (each.min, each.max) for name, each in ends.items()} == {
        "layer": ("a", "a"),
        "channel": (0, 4),
    }


def test_row_groups_hold_whole_channels() -> None:
    channels, n = 40, GROUP_ROWS // 16
    _, buffer = sample_bytes("a", rows(n, channels), None, elements(100, channels))
    file = pq.ParquetFile(buffer)
    seen = [
        set(np.unique(file.read_row_group(i, columns=["channel"])["channel"]))
        for i in range(file.num_row_groups)
    ]
    assert len(seen) == 3
    assert sum(len(group) for group in seen) == channels


def test_the_order_in_which_rows_arrive_does_not_change_the_bytes() -> None:
    uniform, tail = rows(30, 4), elements(20, 4)
    shuffled = {name: array[::-1] for name, array in uniform.items()}
    reversed_tail = {name: array[::-1].copy() for name, array in tail.items()}
    assert (
        sample_bytes("a", uniform, None, tail)[1]
        == sample_bytes("a", shuffled, None, reversed_tail)[1]
    )


def test_a_layer_without_rows_is_an_empty_table() -> None:
    assert read(sample_bytes("a", rows(0, 4), None, None)[1]).empty


def test_rows_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"uniform rows must have the shapes"):
        sample_bytes("a", {**rows(4, 3), "image": np.arange(5)}, None, None)
    with pytest.raises(ValueError, match=r"disagree about the number of channels"):
        sample_bytes("a", rows(4, 3), rows(2, 4), None)
    with pytest.raises(ValueError, match=r"the layer has 3"):
        sample_bytes("a", rows(4, 3), None, elements(50, 4))
    with pytest.raises(ValueError, match=r"tail arrays"):
        sample_bytes("a", rows(4, 3), None, {**elements(5, 3), "image": np.arange(4)})


def test_row_groups_end_with_the_table() -> None:
    channels, n = 5, GROUP_ROWS // 2
    sizes = [len(group) for group in sample_groups("a", rows(n, channels), None, None)]
    assert sizes == [2 * n, 2 * n, n]


def test_a_layer_of_the_default_vit_b_run_takes_at_most_five_megabytes() -> None:
    uniform, prefix = rows(512, 768), rows(64, 768)
    uniform["image"], uniform["position"] = (
        np.arange(512) // 8,
        np.random.default_rng(0).integers(0, 197, 512),
    )
    _, buffer = sample_bytes("blocks.0.norm1", uniform, prefix, elements(1000, 768))
    assert buffer.size < 4.7e6  # 25 of them stay under 120 MB


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("blocks.0.norm1", "003-blocks.0.norm1.parquet"),
        ("norm#2", "003-norm_2.parquet"),
        ("../../etc/passwd", "003-.._.._etc_passwd.parquet"),
        ("..\\a\0b\n*?[x]=1", "003-.._a_b____x__1.parquet"),
        ("", "003-.parquet"),
        ("x" * 5000, "003-" + "x" * 100 + ".parquet"),
        ("Ünorm", "003-_norm.parquet"),
    ],
)
def test_layer_names_are_escaped_in_file_names(layer: str, name: str) -> None:
    assert sample_name(3, layer) == name


def test_file_names_sort_by_depth_and_differ_where_layers_look_alike() -> None:
    assert sample_name(2, "a") < sample_name(10, "A") < sample_name(999, "a")
    assert len({sample_name(i, name).lower() for i, name in enumerate(["a#1", "a/1", "A_1"])}) == 3

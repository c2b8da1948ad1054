"""Tables and samples to parquet bytes: the same arrays give the same bytes.

Floats are split by byte, so that zstd finds the few exponent bytes; counters are delta-packed, but
for those of samples: image and position repeat from channel to channel, which zstd sees by itself
in half of the time.
https://parquet.apache.org/docs/file-format/data-pages/encodings/
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from probe.records import STRATA
from probe.store.schema import SAMPLE_SCHEMA, TABLES, VALUES

GROUP_ROWS = 1 << 17  # aim of a row group of samples; always whole channels
# zstd works in blocks of 128 kB; in small pages such a block mixes exponent bytes with mantissa
# bytes and takes 10 % more.
PAGE_BYTES = 1 << 21
# newer pyarrow cuts pages at 20,000 rows
_LIMITED = "max_rows_per_page" in signature(pq.ParquetWriter.__init__).parameters
_WHOLE_PAGES = {"max_rows_per_page": PAGE_BYTES} if _LIMITED else {}
_SAMPLE_DICTIONARIES = ("layer", "stratum")
# what tells row groups and files apart, for readers that skip by it
_SAMPLE_STATISTICS = ("layer", "image", "position", "channel")


def table_bytes(
    name: str,
    data: pd.DataFrame | pa.Table | Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
) -> tuple[int, pa.Buffer]:
    """Rows and parquet bytes of a table of TABLES; `metadata` stands in the file's own key-value
    metadata. Raises ValueError for missing columns or values that do not fit their type.
    """
    schema = TABLES[name]
    table = _arrow(data)
    missing = [column for column in schema.names if column not in table.column_names]
    if missing:
        raise ValueError(f"table {name!r} lacks the columns {', '.join(missing)}")
    extra = [column for column in table.column_names if column not in schema.names]
    table = pa.table(
        {
            **{field.name: table[field.name].cast(field.type) for field in schema},
            **{c: table[c] for c in extra},
        }
    )
    texts = [
        field.name
        for field in table.schema
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    table = _noted(table, metadata)
    return table.num_rows, parquet_bytes(table, [0, table.num_rows], dictionaries=texts)


def _arrow(data: pd.DataFrame | pa.Table | Mapping[str, Any]) -> pa.Table:
    if isinstance(data, pd.DataFrame):
        data = pa.Table.from_pandas(data, preserve_index=False)
    elif not isinstance(data, pa.Table):
        data = pa.table(dict(data))
    return data.replace_schema_metadata(None)


def _noted(table: pa.Table, metadata: Mapping[str, str] | None) -> pa.Table:
    """The table with sorted metadata in its schema; without any, none at all."""
    return table.replace_schema_metadata(dict(sorted(metadata.items())) if metadata else None)


def sample_bytes(
    layer: str,
    uniform: Mapping[str, Any],
    prefix: Mapping[str, Any] | None,
    tail: Mapping[str, Any] | None,
    metadata: Mapping[str, str] | None = None,
) -> tuple[int, pa.Buffer]:
    """Rows and parquet bytes of one layer's samples; see `RunWriter.write_samples` for the
    arrays and `table_bytes` for the metadata.
    """
    table, starts = sample_table(layer, uniform, prefix, tail)
    table = _noted(table, metadata)
    return table.num_rows, parquet_bytes(
        table,
        starts,
        dictionaries=list(_SAMPLE_DICTIONARIES),
        statistics=list(_SAMPLE_STATISTICS),
        integers="PLAIN",
    )


def sample_table(
    layer: str,
    uniform: Mapping[str, Any],
    prefix: Mapping[str, Any] | None,
    tail: Mapping[str, Any] | None,
) -> tuple[pa.Table, list[int]]:
    """The samples sorted by channel, stratum, image, position; and the rows where row groups start
    (the end included).

    uniform, prefix: image (N,), position (N,), input, normalized, output (N, C). tail: six arrays
    (T,), with `channel`.
    """
    strata = [_rows(STRATA[0], uniform)] + (
        [_rows(STRATA[1], prefix)] if prefix is not None else []
    )
    channels = {part["input"].shape[1] for part in strata}
    if len(channels) > 1:
        raise ValueError(
            f"layer {layer!r}: strata disagree about the number of channels: {sorted(channels)}"
        )
    layout = _Layout(channels.pop(), sum(len(part["image"]) for part in strata), _elements(tail))
    codes = np.repeat(
        np.arange(len(strata), dtype=np.int8), [len(part["image"]) for part in strata]
    )
    columns = [
        pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(layout.total, np.int32)), pa.array([layer])
        ),
        *(
            pa.array(layout.place(name, [part[name] for part in strata]))
            for name in ("image", "position")
        ),
        pa.array(layout.channel()),
        *(pa.array(layout.place(name, [part[name] for part in strata])) for name in VALUES),
        pa.DictionaryArray.from_arrays(
            pa.array(layout.place("stratum", [codes])), pa.array(STRATA)
        ),
    ]
    return pa.Table.from_arrays(columns, schema=SAMPLE_SCHEMA), layout.group_starts()


def _rows(stratum: str, rows: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """One stratum of whole rows, sorted by image and position, checked for its shapes."""
    image, position = (np.asarray(rows[name], dtype=np.int32) for name in ("image", "position"))
    values = {name: np.asarray(rows[name], dtype=np.float32) for name in VALUES}
    shapes = {array.shape for array in values.values()}
    if (
        len(shapes) > 1
        or values["input"].ndim != 2
        or not image.shape == position.shape == values["input"].shape[:1]
    ):
        given = {name: np.shape(rows[name]) for name in ("image", "position", *VALUES)}
        raise ValueError(
            f"{stratum} rows must have the shapes (N,), (N,), (N, C), (N, C), (N, C), not {given}"
        )
    order = np.lexsort((position, image))
    if not np.array_equal(order, np.arange(len(order))):
        image, position = image[order], position[order]
        values = {name: array[order] for name, array in values.items()}
    return {"image": image, "position": position, **values}


def _elements(tail: Mapping[str, Any] | None) -> dict[str, NDArray[Any]]:
    """The tail, sorted by channel, image, position; empty arrays where there is none."""
    kinds = {
        name: SAMPLE_SCHEMA.field(name).type.to_pandas_dtype()
        for name in ("image", "position", "channel", *VALUES)
    }
    arrays = {
        name: np.asarray(tail[name] if tail else (), dtype=kind) for name, kind in kinds.items()
    }
    if any(array.shape != (len(arrays["channel"]),) for array in arrays.values()):
        raise ValueError(
            "tail arrays must all have the shape (T,), not "
            f"{ ({n: a.shape for n, a in arrays.items()}) }"
        )
    order = np.lexsort((arrays["input"], arrays["position"], arrays["image"], arrays["channel"]))
    return {
        "stratum": np.full(len(order), 2, np.int8),
        **{name: array[order] for name, array in arrays.items()},
    }


class _Layout:
    """Where everything lies in one layer's columns: per channel first its `rows` rows, then its
    part of the tail.
    """

    def __init__(self, channels: int, rows: int, tail: dict[str, NDArray[Any]]) -> None:
        self.channels, self.rows, self.tail = channels, rows, tail
        channel = tail["channel"]
        if len(channel) and not 0 <= channel[0] <= channel[-1] < channels:
            raise ValueError(
                f"tail channels reach from {channel[0]} to {channel[-1]}; the layer has {channels}"
            )
        self.per_channel = rows + np.bincount(channel, minlength=channels)
        self.total = int(self.per_channel.sum())
        self.tail_index = np.arange(len(channel)) + rows * (channel.astype(np.int64) + 1)
        self.is_row = np.ones(self.total, dtype=bool)
        self.is_row[self.tail_index] = False

    def place(self, name: str, parts: list[NDArray[Any]]) -> NDArray[Any]:
        """One column. parts: one array per stratum, (N,) for what all channels share or (N, C)."""
        block = np.empty((self.channels, self.rows), dtype=parts[0].dtype)
        start = 0
        for part in parts:
            block[:, start : start + len(part)] = part.T
            start += len(part)
        if not len(self.tail_index):
            return block.reshape(-1)
        column = np.empty(self.total, dtype=block.dtype)
        column[self.is_row] = block.reshape(-1)
        column[self.tail_index] = self.tail[name]
        return column

    def channel(self) -> NDArray[np.int32]:
        return np.repeat(np.arange(self.channels, dtype=np.int32), self.per_channel)

    def group_starts(self) -> list[int]:
        per_group = max(1, GROUP_ROWS // max(1, self.rows))
        starts = np.concatenate(([0], np.cumsum(self.per_channel)))[:-1:per_group]
        return [*(int(start) for start in starts), self.total]


def parquet_bytes(
    table: pa.Table,
    starts: list[int],
    *,
    dictionaries: list[str],
    statistics: bool | list[str] = True,
    integers: str = "DELTA_BINARY_PACKED",
) -> pa.Buffer:
    """starts: first row of each row group, then the number of rows. statistics: of all columns, or
    of these. integers: the encoding of those that are no dictionaries.
    """
    encodings = {
        field.name: _encoding(field.type, integers)
        for field in table.schema
        if field.name not in dictionaries
    }
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        compression_level=1,  # level 3 takes 10 % longer for 1 % less
        use_dictionary=dictionaries,
        column_encoding={name: encoding for name, encoding in encodings.items() if encoding},
        write_statistics=statistics,
        write_page_checksum=True,
        data_page_size=PAGE_BYTES,
        **_WHOLE_PAGES,
    ) as writer:
        for start, end in pairwise(starts):
            writer.write_table(table.slice(start, end - start), row_group_size=max(1, end - start))
    return sink.getvalue()


def _encoding(kind: pa.DataType, integers: str) -> str | None:
    if pa.types.is_floating(kind):
        return "BYTE_STREAM_SPLIT"
    return integers if pa.types.is_integer(kind) else None

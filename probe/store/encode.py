"""Tables and samples to parquet: the same arrays give the same bytes.

Floats are split by byte, so that zstd finds the few exponent bytes; counters are delta-packed, but
for those of samples: image and position repeat from channel to channel, which zstd sees by itself
in half of the time.
https://parquet.apache.org/docs/file-format/data-pages/encodings/

A sink is a file that is open for writing, or an arrow stream. What is written reaches it page by
page, and row groups are made when their turn comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from inspect import signature
from itertools import chain
from typing import Any, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from probe.store.sample_layout import sample_groups
from probe.store.schema import SAMPLE_SCHEMA, TABLES

TABLE_ROWS = 1 << 16  # aim of a row group of a table that comes in parts; always whole parts
# zstd works in blocks of 128 kB; in small pages such a block mixes exponent bytes with mantissa
# bytes and takes 10 % more.
PAGE_BYTES = 1 << 21
# newer pyarrow cuts pages at 20,000 rows
_LIMITED = "max_rows_per_page" in signature(pq.ParquetWriter.__init__).parameters
_WHOLE_PAGES = {"max_rows_per_page": PAGE_BYTES} if _LIMITED else {}
_BATCH = 1 << 17  # values that are encoded at a time: of 1,024 each batch costs as much as they do
_SAMPLE_DICTIONARIES = ("layer", "stratum")
# what tells row groups and files apart, for readers that skip by it
_SAMPLE_STATISTICS = ("layer", "channel")

Data: TypeAlias = pd.DataFrame | pa.Table | Mapping[str, Any]


def write_table(
    sink: Any,
    name: str,
    data: Data | Iterator[pa.Table],
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Writes a table of TABLES; returns its number of rows.

    data: the rows, or an iterator over parts of them, each of which may go when it is written.
    metadata: stands in the file's own key-value metadata.
    Raises ValueError for missing columns or values that do not fit their type.
    """
    parts = data if isinstance(data, Iterator) else iter([data])
    groups = (_typed(name, group) for group in _in_groups(map(_arrow, parts)))
    first = next(groups, TABLES[name].empty_table())
    texts = [field.name for field in first.schema if _is_text(field.type)]
    schema = _noted(first.schema, metadata)
    return _write_groups(sink, schema, chain([first], groups), dictionaries=texts)


def table_bytes(name: str, data: Data, metadata: Mapping[str, str] | None = None) -> pa.Buffer:
    """What `write_table` writes."""
    sink = pa.BufferOutputStream()
    write_table(sink, name, data, metadata)
    return sink.getvalue()


def write_samples(
    sink: Any,
    layer: str,
    uniform: Mapping[str, Any],
    prefix: Mapping[str, Any] | None,
    tail: Mapping[str, Any] | None,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Writes one layer's samples and returns their number; see `RunWriter.write_samples` for the
    arrays and `write_table` for the metadata.
    """
    return _write_groups(
        sink,
        _noted(SAMPLE_SCHEMA, metadata),
        sample_groups(layer, uniform, prefix, tail),
        dictionaries=list(_SAMPLE_DICTIONARIES),
        statistics=list(_SAMPLE_STATISTICS),
        integers="PLAIN",
    )


def parquet_bytes(table: pa.Table, dictionaries: list[str]) -> pa.Buffer:
    """Any table, as one row group."""
    sink = pa.BufferOutputStream()
    _write_groups(sink, table.schema, [table], dictionaries=dictionaries)
    return sink.getvalue()


def _typed(name: str, table: pa.Table) -> pa.Table:
    """With the columns and types of a table of TABLES, and whatever other columns there are."""
    schema = TABLES[name]
    missing = [column for column in schema.names if column not in table.column_names]
    if missing:
        raise ValueError(f"table {name!r} lacks the columns {', '.join(missing)}")
    extra = [column for column in table.column_names if column not in schema.names]
    return pa.table(
        {
            **{field.name: table[field.name].cast(field.type) for field in schema},
            **{c: table[c] for c in extra},
        }
    )


def _arrow(data: Data) -> pa.Table:
    if isinstance(data, pd.DataFrame):
        data = pa.Table.from_pandas(data, preserve_index=False)
    elif not isinstance(data, pa.Table):
        data = pa.table(dict(data))
    return data.replace_schema_metadata(None)


def _in_groups(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """As many parts together as fill a row group."""
    waiting: list[pa.Table] = []
    for part in parts:
        waiting.append(part)
        if sum(each.num_rows for each in waiting) >= TABLE_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _noted(schema: pa.Schema, metadata: Mapping[str, str] | None) -> pa.Schema:
    """The schema with sorted metadata; without any, none at all."""
    return schema.with_metadata(dict(sorted(metadata.items())) if metadata else None)


def _write_groups(
    sink: Any,
    schema: pa.Schema,
    groups: Iterable[pa.Table],
    *,
    dictionaries: list[str],
    statistics: bool | list[str] = True,
    integers: str = "DELTA_BINARY_PACKED",
) -> int:
    """Writes each table as a row group; returns the number of rows. statistics: of all columns, or
    of these. integers: the encoding of those that are no dictionaries.
    """
    encodings = {
        field.name: _encoding(field.type, integers)
        for field in schema
        if field.name not in dictionaries
    }
    rows = 0
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=1,  # level 3 takes 10 % longer for 1 % less
        use_dictionary=dictionaries,
        column_encoding={name: encoding for name, encoding in encodings.items() if encoding},
        write_statistics=statistics,
        write_page_checksum=True,
        write_batch_size=_BATCH,
        data_page_size=PAGE_BYTES,
        **_WHOLE_PAGES,
    ) as file:
        for group in groups:
            file.write_table(group, row_group_size=max(1, group.num_rows))
            rows += group.num_rows
    return rows


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _encoding(kind: pa.DataType, integers: str) -> str | None:
    if pa.types.is_floating(kind):
        return "BYTE_STREAM_SPLIT"
    return integers if pa.types.is_integer(kind) else None

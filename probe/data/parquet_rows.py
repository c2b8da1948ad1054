"""Rows of Parquet files as images: where each row lies, what its column holds, reading one."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from probe.data.images import BadImage, read_image
from probe.errors import UsageError, first_line


class Place(NamedTuple):
    """A row by its file (index in the list of files), row group and number in that group."""

    file: int
    group: int
    row: int


@dataclass(frozen=True)
class ParquetReader:
    """Reads images by index. Picklable; the row group read last is kept, as neighbours share it."""

    files: tuple[Path, ...]
    places: tuple[Place, ...]
    image: str  # column of the images
    label: str | None  # column of the labels; None: there is none
    classes: int | None  # how many classes the file names

    def __call__(self, index: int) -> Image.Image:
        place = self.places[index]
        try:
            value = _column(self.files[place.file], place.group, self.image)[place.row].as_py()
        except (OSError, pa.ArrowException) as error:
            raise BadImage(f"cannot be read: {first_line(error)}") from error
        return read_image(io.BytesIO(encoded(value)))

    def labels(self) -> list[Any] | None:
        """The label of each image, as the column holds it; None without such a column."""
        if self.label is None:
            return None
        return [
            _column(self.files[place.file], place.group, self.label)[place.row].as_py()
            for place in self.places
        ]


def encoded(value: Any) -> bytes:
    """The image file in a cell: bytes, or a struct of bytes and path. Raises BadImage."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return content
    if isinstance(value, dict) and value.get("path"):
        raise BadImage("only the path of a file is stored, not the file")
    raise BadImage("no image is stored")


class RowGroups:
    """The rows of several files in order, from their footers alone. Raises UsageError for a file
    that is broken.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._groups: list[tuple[int, int]] = []  # file and row group
        ends = [0]
        for number, file in enumerate(files):
            footer = _footer(file)
            for group in range(footer.num_row_groups):
                self._groups.append((number, group))
                ends.append(ends[-1] + footer.row_group(group).num_rows)
        self._ends = np.array(ends)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def place(self, row: int) -> Place:
        """Where row `row` of all files lies."""
        group = int(np.searchsorted(self._ends, row, side="right")) - 1
        return Place(*self._groups[group], int(row - self._ends[group]))


def _footer(file: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"data {str(file)!r} cannot be read: {first_line(error)}") from error


def holds_images(kind: pa.DataType) -> bool:
    """Can a column of this type hold image files: bytes, or a struct with a field `bytes`?"""
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def features_of(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What the datasets library says of the columns in the file: `_type`, `names` of classes."""
    try:
        known = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {name: each for name, each in known.items() if isinstance(each, dict)}


@lru_cache(maxsize=2)  # the images of a row group, and its labels
def _column(file: Path, group: int, name: str) -> pa.ChunkedArray:
    with pq.ParquetFile(file) as opened:
        return opened.read_row_group(group, columns=[name]).column(name)


__all__ = ["ParquetReader", "Place", "RowGroups", "encoded", "features_of", "holds_images"]

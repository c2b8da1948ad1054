"""Images that come one after the other without a number or an end that is known: `hfids/...`, and
iterable data sets of the datasets library given in Python.

Names as timm spells them: `hfids/PATH_OR_NAME?split=train&input_key=image`; options as those of
`hfds/...`. Nothing is shuffled and nothing kept: the first images that come are the ones used, and
an image's index is its place in the stream. https://huggingface.co/docs/datasets/en/stream
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from PIL import Image

from probe.data.images import read_image, to_rgb
from probe.data.parquet_rows import encoded
from probe.data.timm_datasets import OPTIONS, datasets_library, first_split, need_hub
from probe.errors import ProbeError, UsageError, first_line, named_first_line, quiet, unknown

PREFIX = "hfids/"
Row = Callable[[], Image.Image]  # one image of the stream; raises BadImage


@dataclass(frozen=True)
class ImageStream:
    """Images as they come. Iterated once: each item reads one image as RGB, or raises BadImage."""

    rows: Iterable[Row]
    description: dict[str, Any] = field(default_factory=dict)  # JSON: kind, location, ...

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)


def is_stream_name(data: Any) -> bool:
    """Does `data` name a stream?"""
    return isinstance(data, str) and data.lower().startswith(PREFIX)


def open_image_stream(uri: str) -> ImageStream:
    """The stream of `hfids/NAME?options`. Raises UsageError for what cannot be opened, ProbeError
    without library or network.
    """
    name, _, query = uri.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in OPTIONS:
            raise unknown("dataset option", option, OPTIONS)
    place = name[len(PREFIX) :]
    datasets = datasets_library(name)
    if not Path(place).exists():
        need_hub(name)
    try:
        with quiet("datasets", logging.CRITICAL):
            splits = [] if "split" in options else datasets.get_dataset_split_names(place)
            split = options.get("split") or first_split(splits, name)
            opened = datasets.load_dataset(
                place, split=split, cache_dir=options.get("root"), streaming=True
            )
    except ProbeError:
        raise
    except Exception as error:  # the datasets library raises many types for what it cannot find
        raise UsageError(f"data {name!r} cannot be opened: {first_line(error)}") from error
    found = image_stream_of(opened, name, options.get("input_key"))
    if found is None:
        raise UsageError(f"data {name!r} has no column of images; name one by ?input_key=COLUMN")
    return ImageStream(found.rows, found.description | {"split": split})


def image_stream_of(
    dataset: Any, location: str | None = None, column: str | None = None
) -> ImageStream | None:
    """The images of an iterable data set of the datasets library; None for anything else, and for
    one whose rows hold no image. Raises UsageError for an empty one and for a column that its rows
    lack, ProbeError where it breaks off.
    """
    kind = type(dataset)
    if kind.__name__ != "IterableDataset" or not kind.__module__.startswith("datasets."):
        return None
    shown = location or kind.__name__
    rows = _rows(_undecoded(dataset), shown)
    first = next(rows, None)
    if first is None:
        raise UsageError(f"data {shown!r} is an empty stream: it has no row")
    if not isinstance(first, Mapping):
        return None
    column = column or next((key for key, value in first.items() if _is_image(value)), None)
    if column is None:
        return None
    if column not in first:
        raise UsageError(f"data {shown!r}: input_key {column!r}; its columns: {', '.join(first)}")
    cells = (row[column] for row in chain([first], rows))
    return ImageStream(
        (_Cell(cell) for cell in cells),
        {"kind": "stream", "location": shown, "identity": None},
    )


@dataclass(frozen=True)
class _Cell:
    """One cell of an image column."""

    value: Any

    def __call__(self) -> Image.Image:
        if isinstance(self.value, Image.Image):
            return to_rgb(self.value)
        return read_image(io.BytesIO(encoded(self.value)))


def _undecoded(dataset: Any) -> Any:
    """The data set with images as bytes: a broken one is then our own to tell, and does not end the
    stream.
    """
    import datasets

    for name, kind in (dataset.features or {}).items():
        if isinstance(kind, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    return dataset


def _rows(dataset: Iterable[Any], shown: str) -> Iterator[Any]:
    """The rows; whatever ends them early (a file, the network) is told in one line."""
    rows, end = iter(dataset), object()
    while True:
        try:
            with quiet("datasets", logging.CRITICAL):
                row = next(rows, end)
        except Exception as error:
            raise ProbeError(f"data {shown!r} broke off: {named_first_line(error)}") from error
        if row is end:
            return
        yield row


def _is_image(value: Any) -> bool:
    return isinstance(value, Image.Image | bytes) or (
        isinstance(value, Mapping) and {"bytes", "path"} <= value.keys()
    )


__all__ = ["ImageStream", "image_stream_of", "is_stream_name", "open_image_stream"]

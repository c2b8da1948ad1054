"""The class of each image, where the data tells it: one sub-folder per class, or a dataset with
labels.

Sub-folders are numbered as training code does: sorted by name, or by their number where every name
is one. Whether number 3 here is class 3 of a model cannot be seen from the data; that the number of
classes agrees is the least that must hold.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probe.data.parquet_rows import ParquetReader
from probe.data.source import ImageSource
from probe.data.sources import printable


@dataclass(frozen=True)
class Labels:
    """index (N,): class of each image of a source. classes: how many there are; None: the data does
    not say.
    """

    index: NDArray[np.int64]
    classes: int | None


def labels_of(source: ImageSource) -> Labels | None:
    """The labels of a source; None where it has none."""
    if source.description["kind"] == "folder":
        return _of_folders(source.ids, Path(source.description["location"]))
    if isinstance(source.read, ParquetReader):
        values = source.read.labels()
        return None if values is None else _whole_numbers(values, source.read.classes)
    dataset = getattr(source.read, "dataset", None)
    if dataset is None:
        return None
    rows = list(source.read.rows)  # type: ignore[attr-defined]
    reader = getattr(dataset, "reader", None)
    return _of_hugging_face(reader, rows) if reader is not None else _of_torchvision(dataset, rows)


def _of_folders(ids: Sequence[str], folder: Path) -> Labels | None:
    """The first folder of each path below `folder`; None where an image lies in no sub-folder."""
    first = [name.split("/", 1)[0] if "/" in name else None for name in ids]
    try:
        entries = [
            entry.name
            for entry in os.scandir(folder)
            if entry.is_dir() and not entry.name.startswith(".")
        ]
    except OSError:  # a name that had to be escaped to be told
        return None
    names = [printable(name) for name in entries]
    if None in first or not set(first) <= set(names):
        return None
    if all(name.isdecimal() for name in names):
        number = {name: int(name) for name in names}
    else:
        number = {name: rank for rank, name in enumerate(sorted(names))}
    return Labels(np.array([number[str(name)] for name in first], dtype=np.int64), len(names))


def _of_hugging_face(reader: Any, rows: list[int]) -> Labels | None:
    key = getattr(reader, "label_key", None)
    features = getattr(getattr(reader, "dataset", None), "features", None) or {}
    if key not in features:
        return None
    column = reader.dataset.select_columns([key]).select(rows)[key]
    return _whole_numbers(list(column), getattr(features[key], "num_classes", None))


def _of_torchvision(dataset: Any, rows: list[int]) -> Labels | None:
    for name in ("targets", "labels", "_labels"):
        every = getattr(dataset, name, None)
        if every is not None and len(every) == len(dataset):
            classes = getattr(dataset, "classes", None)
            return _whole_numbers([every[row] for row in rows], len(classes) if classes else None)
    return None


def _whole_numbers(values: list[Any], classes: int | None) -> Labels | None:
    """Labels of one class per image; None for texts, lists of classes and missing ones."""
    try:
        index = np.asarray(values)
    except ValueError:
        return None
    return (
        Labels(index.astype(np.int64), classes)
        if index.ndim == 1 and index.dtype.kind in "iu"
        else None
    )


__all__ = ["Labels", "labels_of"]

"""The images of a training with their classes: a training and a validation part, as a folder, as
Parquet files, or as a timm dataset holds them.

    data/train/<class>/*.jpeg, data/val/<class>/*.jpeg      a folder
    cifar10/train-00000-of-00001.parquet, test-...          FOLDER, or FOLDER?split=train
    hfds/NAME, torch/NAME?root=FOLDER                       timm datasets
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probe.data import ImageSource, labels_of, open_images
from probe.data.parquet_folders import parquet_files
from probe.data.sources import DATASETS
from probe.data.timm_datasets import SPLITS
from probe.errors import ProbeError, UsageError

TRAINING = ("train", "training")
VALIDATION = tuple(split for split in SPLITS if split != "train")
NEED_LABELS = (
    "classes are needed: a sub-folder per class, a column `label` (?target_key=COLUMN), or a "
    "dataset with labels"
)


@dataclass(frozen=True)
class Labelled:
    """Images and the class of each: labels (N,). data: as open_images took it."""

    data: str
    source: ImageSource
    labels: NDArray[np.int64]
    names: tuple[str, ...]  # of the classes; empty where the data has none

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def described(self) -> dict[str, Any]:
        """What training.json says: kind, location, identity, how many."""
        kept = ("kind", "location", "split", "identity", "chosen")
        return {key: self.source.description[key] for key in kept if key in self.source.description}


@dataclass(frozen=True)
class TrainingImages:
    """Both parts of the data, with the same classes."""

    training: Labelled
    validation: Labelled

    @cached_property
    def classes(self) -> int:
        """How many: what the data says, else the largest label."""
        named = len(self.training.names)
        return named or int(max(self.training.labels.max(), self.validation.labels.max())) + 1


def open_training_images(data: str | os.PathLike[str], val_data: str | None) -> TrainingImages:
    """The two parts of `data`; val_data: the validation part, where it is elsewhere.

    Raises UsageError for a part that is missing, has no classes, an empty class or other classes
    than the other part.
    """
    first = _part(os.fspath(data), TRAINING)
    second = val_data if val_data is not None else _part(os.fspath(data), VALIDATION)
    training, validation = (open_labelled(name) for name in (first, second))
    if training.names != validation.names:
        raise UsageError(_difference(training.names, validation.names, first, second))
    return TrainingImages(training, validation)


def open_labelled(data: str, num_images: int | None = None, seed: int = 0) -> Labelled:
    """Images with classes. Raises UsageError where there are none, and for an empty class."""
    source = open_images(data, num_images, seed)
    found = labels_of(source)
    if found is None:
        raise UsageError(f"data {data!r} has no labels; {NEED_LABELS}")
    if found.index.min() < 0:
        raise UsageError(f"data {data!r} holds images of no class (label -1); {NEED_LABELS}")
    names = _class_names(source, found.classes)
    if num_images is None and source.description["kind"] == "folder":
        _refuse_empty(data, names, found.index)
    return Labelled(data, source, found.index, names)


def _class_names(source: ImageSource, classes: int | None) -> tuple[str, ...]:
    """Folders by the number that labels_of gives them; of other data numbers as text."""
    if source.description["kind"] == "folder":
        folder = Path(source.description["location"])
        names = [each.name for each in folder.iterdir() if each.is_dir() and each.name[0] != "."]
        if all(name.isdecimal() for name in names):
            return tuple(sorted(names, key=int))
        return tuple(sorted(names))
    return tuple(str(number) for number in range(classes or 0))


def _refuse_empty(data: str, names: Sequence[str], labels: NDArray[np.int64]) -> None:
    present = set(labels.tolist())
    numbered = all(name.isdecimal() for name in names)
    empty = [
        name
        for place, name in enumerate(names)
        if (int(name) if numbered else place) not in present
    ]
    if empty:
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        raise UsageError(
            f"data {data!r}: no image in class folder {', '.join(empty[:3])}{more}; fill or remove "
            "it (classes are numbered by their folders)"
        )


def _difference(first: Sequence[str], second: Sequence[str], training: str, validation: str) -> str:
    here = [name for name in first if name not in second]
    there = [name for name in second if name not in first]
    each = [
        f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''} only in {place!r}"
        for names, place in ((here, training), (there, validation))
        if names
    ]
    return f"training and validation data have different classes: {'; '.join(each)}"


def _part(data: str, splits: Sequence[str]) -> str:
    """The name of one part of the data, as open_images takes it. Raises UsageError."""
    name, question, query = data.partition("?")
    path = Path(name).expanduser()
    if path.is_dir():
        return _part_of_folder(path, splits, query)
    if name.lower().startswith(DATASETS):
        others = [option for option in query.split("&") if not option.startswith("split=")]
        wanted = _of_dataset(name, splits, query)
        return f"{name}?{'&'.join([f'split={wanted}', *filter(None, others)])}"
    if path.exists() or question:
        raise UsageError(f"data {data!r} is no folder with a training and a validation part")
    raise UsageError(
        f"data {data!r} does not exist; accepted: a folder with train/ and val/, a folder of "
        "Parquet files, or a timm dataset (hfds/..., torch/...?root=...)"
    )


def _part_of_folder(folder: Path, splits: Sequence[str], query: str) -> str:
    for split in splits:
        if (folder / split).is_dir() and not parquet_files(folder):
            return str(folder / split)
    if files := parquet_files(folder):
        return _part_of_parquet(folder, files, splits, query)
    if splits is TRAINING and query == "" and not any((folder / v).is_dir() for v in VALIDATION):
        return str(folder)  # class folders themselves; the validation part is elsewhere
    others = sorted(each.name for each in folder.iterdir() if each.is_dir())[:5]
    hint = "" if splits is TRAINING else ", or give --val-data D"
    raise UsageError(
        f"data {str(folder)!r} has no folder {' or '.join(splits[:3])} (it has "
        f"{', '.join(others) or 'none'}); make one with a sub-folder per class{hint}"
    )


def _part_of_parquet(folder: Path, files: Sequence[Path], splits: Sequence[str], query: str) -> str:
    from probe.data.parquet_folders import split_name

    present = list(dict.fromkeys(split_name(file, folder) for file in files))
    options = [part for part in query.split("&") if part]
    asked = next((part for part in options if part.startswith("split=")), None)
    if asked is not None and splits is TRAINING:
        return f"{folder}?{query}"
    others = [part for part in options if part is not asked]
    for split in splits:
        if split in present:
            return f"{folder}?{'&'.join([f'split={split}', *others])}"
    hint = "" if splits is TRAINING else "; give --val-data D"
    raise UsageError(
        f"data {str(folder)!r} has no split {' or '.join(splits[:3])}: it has "
        f"{', '.join(present)}{hint}"
    )


def _of_dataset(name: str, splits: Sequence[str], query: str) -> str:
    """The split of a timm dataset: the one that is asked for, else the one timm knows under the
    usual name.
    """
    asked = next((part[6:] for part in query.split("&") if part.startswith("split=")), None)
    if asked is not None and splits is TRAINING:
        return asked
    if splits is TRAINING or not name.lower().startswith("hfds/"):
        return splits[0]
    from probe.data.timm_datasets import datasets_library

    path = name.split("/", 1)[1]
    try:
        present = datasets_library(name).get_dataset_split_names(path)
    except ProbeError:
        raise
    except Exception:  # the datasets library raises many types; opening tells what is wrong
        return splits[0]
    chosen = next((split for split in splits if split in present), None)
    if chosen is None:
        raise UsageError(
            f"data {name!r} has no split {' or '.join(splits)}: it has {', '.join(present)}; give "
            "--val-data D"
        )
    return chosen

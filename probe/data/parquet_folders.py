"""A folder of Parquet files as images: `FOLDER` or `FOLDER?split=test`, as the Hugging Face hub
stores data sets (CIFAR-10: `plain_text/train-00000-of-00001.parquet`, `test-...`).

A split is what stands before the shard number of a file, or the folder that holds its files.
Options as of timm URIs: `split` (default: the first of validation, val, test, train that exists),
`input_key` (column of the images; default: the first that holds some) and `target_key` (column of
the labels; default: `label`). Only the row groups that hold chosen images are read, one at a time.
https://huggingface.co/docs/datasets/en/image_dataset
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from probe.data.parquet_rows import ParquetReader, RowGroups, features_of, holds_images
from probe.data.source import ImageSource, choose, describe
from probe.data.timm_datasets import OPTIONS, first_split
from probe.errors import UsageError, first_line, unknown

SUFFIX = ".parquet"
ACCEPTED = tuple(option for option in OPTIONS if option != "root")
SHARD = re.compile(r"(?P<split>.+?)-\d{3,}(-of-\d+)?")
LABELS = "label"


def parquet_files(place: Path) -> list[Path]:
    """The Parquet files below a folder, or the one that `place` is; hidden ones are left out."""
    if place.is_file():
        return [place] if place.suffix == SUFFIX else []
    files = place.rglob(f"*{SUFFIX}")
    return sorted(
        file
        for file in files
        if not any(part.startswith(".") for part in file.relative_to(place).parts)
    )


def open_parquet(
    place: Path, options: Mapping[str, str], num_images: int | None, seed: int
) -> ImageSource:
    """Images of the Parquet files of `place`. Raises UsageError where there are none, or not what
    the options ask for.
    """
    for option in options:
        if option not in ACCEPTED:
            raise unknown("option of a Parquet folder", option, ACCEPTED)
    files, split = _of_split(place, options.get("split"))
    schema = _schema(files[0])
    image = _image_column(schema, options.get("input_key"), place)
    label = _label_column(schema, options.get("target_key"), place)
    rows = RowGroups(files)
    if not len(rows):
        raise UsageError(f"data {str(place)!r} holds no image in split {split!r}")
    chosen = choose(len(rows), num_images, seed)
    places = tuple(rows.place(row) for row in chosen)
    width = len(str(len(rows) - 1))
    ids = tuple(f"{place.name}:{split}#{row:0{width}d}" for row in chosen)
    sizes = [file.stat().st_size for file in files]
    absolute = tuple(file.absolute() for file in files)  # workers may stand elsewhere
    reader = ParquetReader(absolute, places, image, label, _classes(schema, label))
    described = describe(
        "parquet",
        str(place.absolute()),
        [(name, sizes[where.file]) for name, where in zip(ids, places, strict=True)],
        len(rows),
        split=split,
        column=image,
        labels=label,
    )
    return ImageSource(ids, ids, described, reader)


def _of_split(place: Path, wanted: str | None) -> tuple[list[Path], str]:
    """The files of one split, and its name."""
    files = parquet_files(place)
    if not files:
        raise UsageError(f"data {str(place)!r} holds no {SUFFIX} file")
    _refuse_several(place, files)
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(split_name(file, place), []).append(file)
    if wanted is not None:
        if wanted not in splits:
            raise unknown(f"split of {str(place)!r}", wanted, splits)
        return splits[wanted], wanted
    if len(splits) == 1:
        name = next(iter(splits))
        return splits[name], name
    name = first_split(list(splits), str(place))
    return splits[name], name


def split_name(file: Path, place: Path) -> str:
    """`test` of `test-00000-of-00001.parquet`; else the folder's name, or the file's own."""
    if shard := SHARD.fullmatch(file.stem):
        return shard["split"]
    numbered = file.stem.isdecimal()
    return file.parent.name if numbered and file.parent != place else file.stem


def _refuse_several(place: Path, files: list[Path]) -> None:
    """Raises UsageError where files of one split lie in several folders: these are several
    configurations of a data set, whose images would be mixed.
    """
    folders: dict[str, set[Path]] = {}
    for file in files:
        folders.setdefault(split_name(file, place), set()).add(file.parent)
    several = next((sorted(found) for found in folders.values() if len(found) > 1), None)
    if several:
        names = ", ".join(str(folder) for folder in several)
        raise UsageError(
            f"data {str(place)!r} holds several sets of Parquet files ({names}): give one of "
            "these folders"
        )


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"data {str(file)!r} cannot be read: {first_line(error)}") from error


def _image_column(schema: pa.Schema, wanted: str | None, place: Path) -> str:
    usable = list(_image_columns(schema))
    if wanted is None and usable:
        return usable[0]
    if wanted is not None and wanted in schema.names and holds_images(schema.field(wanted).type):
        return wanted
    told = f"input_key {wanted!r} is no column of images" if wanted else "no column of images"
    hint = f"; name one by ?input_key={usable[0]}" if usable else ""
    raise UsageError(
        f"data {str(place)!r}: {told} (bytes, or a struct of bytes and path); its columns: "
        f"{', '.join(schema.names)}{hint}"
    )


def _image_columns(schema: pa.Schema) -> Iterator[str]:
    """Columns that the file calls images, else those whose type can hold some."""
    features = features_of(schema)
    called = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    yield from (name for name in called or schema.names if holds_images(schema.field(name).type))


def _label_column(schema: pa.Schema, wanted: str | None, place: Path) -> str | None:
    if wanted is not None and wanted not in schema.names:
        raise UsageError(
            f"data {str(place)!r}: target_key {wanted!r}; its columns: {', '.join(schema.names)}"
        )
    return wanted or (LABELS if LABELS in schema.names else None)


def _classes(schema: pa.Schema, label: str | None) -> int | None:
    names = features_of(schema).get(label or "", {}).get("names")
    return len(names) if isinstance(names, list) else None


__all__ = ["SUFFIX", "open_parquet", "parquet_files"]

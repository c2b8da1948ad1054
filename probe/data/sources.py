"""Where images come from: a folder (of images or of Parquet files), a list of files, a timm dataset
or the bundled photographs, all as one ImageSource.

The list is sorted, then `num_images` of it are drawn without replacement and kept in sorted order
(folders are often sorted by class, so the first ones would show one class). An image's index is its
place in that list.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from PIL import Image

from probe.data.bundled_photos import Crop, bundled_crops
from probe.data.images import SUFFIXES, BadImage, read_image
from probe.data.object_stores import open_store
from probe.data.parquet_folders import SUFFIX, open_parquet, parquet_files
from probe.data.source import ImageSource, choose, describe
from probe.data.timm_datasets import open_dataset
from probe.errors import UsageError
from probe.paths import is_address, user_path

LIST_SUFFIXES = (".txt", ".lst", ".list")
ACCEPTED = (
    "a folder of images or of Parquet files, one image, a .txt list of paths, or a timm dataset "
    "(hfds/..., torch/..., folder/...)"
)

DATASETS = ("hfds/", "torch/", "hfids/", "tfds/", "wds/")  # how names of timm begin


@dataclass(frozen=True)
class FileReader:
    """Reads image files by index."""

    paths: tuple[Path, ...]

    def __call__(self, index: int) -> Image.Image:
        path = self.paths[index]
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise BadImage("is a folder" if path.is_dir() else "not a regular file")
        return read_image(path)


@dataclass(frozen=True)
class CropReader:
    """Reads bundled crops by index."""

    crops: tuple[Crop, ...]

    def __call__(self, index: int) -> Image.Image:
        return self.crops[index].read()


def open_images(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    num_images: int | None = None,
    seed: int = 0,
) -> ImageSource:
    """The images that `data` names: None for the bundled photographs, or what `ACCEPTED` lists, or
    a sequence of paths.

    num_images: how many to take (None: all); a draw by `seed`, except of bundled crops, which are
    dealt out by photograph.
    Raises UsageError for data that does not exist, cannot be entered, or holds no image.
    """
    if num_images is not None and num_images < 1:
        raise UsageError(f"num_images is {num_images}; give at least 1")
    if data is None:
        return _bundled(num_images)
    if not isinstance(data, str | os.PathLike):
        return _listed("paths", "", list(data), None, num_images, seed)
    path = user_path(data)
    uri = os.fspath(data)
    if not os.path.lexists(path) and uri.lower().startswith("folder/"):
        path = user_path(uri.split("/", 1)[1])
    elif not os.path.lexists(path) and uri.lower().startswith(DATASETS):
        return open_dataset(uri, num_images, seed)
    if not os.path.lexists(path) and is_address(uri):
        return open_store(uri, num_images, seed)
    if not os.path.lexists(path) and "?" in uri:
        return _with_options(uri, num_images, seed)
    return _on_disk(path, num_images, seed)


def printable(text: str | os.PathLike[str]) -> str:
    """A path as text that JSON and one terminal line can hold: undecodable bytes and control
    characters are escaped.
    """
    decoded = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in decoded
    )


def _bundled(num_images: int | None) -> ImageSource:
    crops = bundled_crops()
    chosen = tuple(sorted(crops[:num_images], key=lambda crop: crop.id))
    described = describe(
        "bundled",
        "scikit-image",
        [(crop.id, crop.file.stat().st_size) for crop in chosen],
        len(crops),
    )
    return ImageSource(
        tuple(c.id for c in chosen), tuple(c.source for c in chosen), described, CropReader(chosen)
    )


def _with_options(uri: str, num_images: int | None, seed: int) -> ImageSource:
    """`FOLDER?split=test`, which only Parquet files take. Raises UsageError for anything else."""
    name, _, query = uri.partition("?")
    path = user_path(name)
    if not path.exists():
        raise UsageError(f"data {printable(name)!r} does not exist; accepted: {ACCEPTED}")
    if not parquet_files(path):
        raise UsageError(
            f"data {printable(name)!r} holds no Parquet file; ?{query} goes with Parquet folders "
            "and timm datasets"
        )
    return open_parquet(path, dict(parse_qsl(query, keep_blank_values=True)), num_images, seed)


def _on_disk(path: Path, num_images: int | None, seed: int) -> ImageSource:
    shown = printable(path)
    try:
        if path.is_dir():
            return _folder(path, num_images, seed)
        if not path.exists():
            raise UsageError(f"data {shown!r} does not exist; accepted: {ACCEPTED}")
        if path.suffix == SUFFIX:
            return open_parquet(path, {}, num_images, seed)
        if path.suffix.lower() in LIST_SUFFIXES:
            return _listed(
                "list", printable(path.absolute()), _read_list(path), path.parent, num_images, seed
            )
    except PermissionError as error:
        raise UsageError(
            f"data {shown!r} cannot be read: permission denied "
            f"({printable(error.filename or path)})"
        ) from None
    return _files(
        "file", printable(path.absolute()), [(printable(path.name), path)], num_images, seed
    )


def _folder(folder: Path, num_images: int | None, seed: int) -> ImageSource:
    paths, ignored, unreadable = _walk(folder)
    if not paths and parquet_files(folder):
        return open_parquet(folder, {}, num_images, seed)
    if not paths:
        others = (
            f" ({ignored} other files, {len(unreadable)} unreadable folders)"
            if ignored or unreadable
            else ""
        )
        raise UsageError(
            f"no image in {printable(folder)!r}{others}; accepted suffixes: "
            f"{' '.join(sorted(SUFFIXES))}"
        )
    pairs = [(printable(path.relative_to(folder).as_posix()), path) for path in paths]
    return _files(
        "folder",
        printable(folder.absolute()),
        pairs,
        num_images,
        seed,
        ignored=ignored,
        unreadable=unreadable,
    )


def _walk(folder: Path) -> tuple[list[Path], int, list[str]]:
    """Image files below `folder`, number of other files, and the folders that could not be entered.
    Links are followed once.
    """
    paths: list[Path] = []
    ignored, unreadable = 0, []
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted((entry.name, _is_folder(entry)) for entry in os.scandir(here))
        except OSError as error:
            if here == folder:
                raise
            unreadable.append(
                f"{printable(here.relative_to(folder).as_posix())}: "
                f"{(error.strerror or 'unreadable').lower()}"
            )
            continue
        for name, is_folder in entries:
            # thumbnails, version control, the `._` twins of some file systems
            hidden = name.startswith(".")
            if is_folder and not hidden:
                waiting.append(here / name)
            elif not hidden and os.path.splitext(name)[1].lower() in SUFFIXES:
                paths.append(here / name)
            else:
                ignored += 1
    return paths, ignored, sorted(unreadable)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """A link that leads to itself is none, and costs no more than itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _read_list(path: Path) -> list[str]:
    """Paths of a list file, one a line; empty lines and lines that start with # are left out.
    Relative ones: to its folder.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UsageError(
            f"list {printable(path)!r} cannot be read: {(error.strerror or 'error').lower()}"
        ) from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _listed(
    kind: str,
    location: str,
    given: list[Any],
    parent: Path | None,
    num_images: int | None,
    seed: int,
) -> ImageSource:
    """The paths of a list or sequence, repeated ones once; relative ones belong to `parent`."""
    for item in given:
        if not isinstance(item, str | os.PathLike):
            raise UsageError(
                f"data holds a {type(item).__name__}; accepted: {ACCEPTED}, or a sequence of paths"
            )
    if not given:
        raise UsageError(f"no image: {location or 'the sequence given as data'} names no path")
    distinct = dict.fromkeys(os.fspath(item) for item in given)
    pairs = [(printable(item), (parent or Path()) / user_path(item)) for item in distinct]
    return _files(kind, location, pairs, num_images, seed, repeated=len(given) - len(distinct))


def _files(
    kind: str,
    location: str,
    pairs: list[tuple[str, Path]],
    num_images: int | None,
    seed: int,
    **more: Any,
) -> ImageSource:
    pairs = sorted(pairs, key=lambda pair: pair[0])
    chosen = [pairs[i] for i in choose(len(pairs), num_images, seed)]
    ids = tuple(name for name, _ in chosen)
    described = describe(
        kind, location, [(name, _size(path)) for name, path in chosen], len(pairs), **more
    )
    # absolute: workers may stand elsewhere
    paths = tuple(path.absolute() for _, path in chosen)
    return ImageSource(ids, ids, described, FileReader(paths))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None  # missing or unreachable: told when it is loaded

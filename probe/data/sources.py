"""Where images come from: a folder, a list of files, a timm dataset or the bundled photographs, all as one ImageSource.

The list is sorted, then `num_images` of it are drawn without replacement and kept in sorted order (folders are often sorted
by class, so the first ones would show one class). An image's index is its place in that list.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from probe.data.bundled_photos import Crop, bundled_crops
from probe.data.images import SUFFIXES, BadImage, read_image
from probe.errors import UsageError
from probe.records import GROUPS

LIST_SUFFIXES = (".txt", ".lst", ".list")
ACCEPTED = "a folder of images, one image, a .txt list of paths, or a timm dataset (hfds/..., torch/..., folder/...)"
Reader = Callable[[int], Image.Image]


@dataclass(frozen=True)
class ImageSource:
    """Images in a fixed order. Picklable, so that loader workers and engines can read it."""

    ids: tuple[str, ...]
    sources: tuple[str, ...]  # the photograph that each image came from; its own id where every image is a photograph
    description: dict[str, Any]  # JSON: kind, location, identity, found, chosen, ...
    read: Reader  # image index -> RGB image; raises BadImage

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def groups(self) -> np.ndarray:
        """Jackknife group of each image, (N,) int64 in 0 .. 15: rank of its source among the sorted distinct sources, mod 16."""
        return np.unique(np.array(self.sources), return_inverse=True)[1].astype(np.int64) % GROUPS

    def load(self, index: int) -> Image.Image:
        """Image `index` as RGB. Raises BadImage with the reason."""
        return self.read(index)


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
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None, num_images: int | None = None, seed: int = 0
) -> ImageSource:
    """The images that `data` names: None for the bundled photographs, or what `ACCEPTED` lists, or a sequence of paths.

    num_images: how many to take (None: all); a draw by `seed`, except of bundled crops, which are dealt out by photograph.
    Raises UsageError for data that does not exist, cannot be entered, or holds no image.
    """
    if num_images is not None and num_images < 1:
        raise UsageError(f"num_images is {num_images}; give at least 1")
    if data is None:
        return _bundled(num_images)
    if not isinstance(data, str | os.PathLike):
        return _listed("paths", "", list(data), None, num_images, seed)
    path = Path(data).expanduser()
    uri = os.fspath(data)
    if not os.path.lexists(path) and uri.lower().startswith("folder/"):
        path = Path(uri.split("/", 1)[1]).expanduser()
    elif not os.path.lexists(path) and uri.split("/", 1)[0].lower() in ("hfds", "torch", "hfids", "tfds", "wds"):
        from probe.data.timm_datasets import open_dataset

        return open_dataset(uri, num_images, seed)
    return _on_disk(path, num_images, seed)


def choose(found: int, num_images: int | None, seed: int) -> np.ndarray:
    """Sorted places of the chosen images among `found` ones: all, or a seeded draw without replacement."""
    if num_images is None or num_images >= found:
        return np.arange(found)
    return np.sort(np.random.default_rng(seed).choice(found, num_images, replace=False))


def describe(kind: str, location: str, items: Iterable[tuple[str, Any]], found: int, **more: Any) -> dict[str, Any]:
    """The manifest entry. `identity` is the SHA-256 of the (id, size) pairs of the chosen images."""
    pairs = [list(item) for item in items]
    digest = hashlib.sha256(json.dumps(pairs, ensure_ascii=True).encode()).hexdigest()
    return {"kind": kind, "location": location, "identity": f"sha256:{digest}", "found": found, "chosen": len(pairs), **more}


def printable(text: str | os.PathLike[str]) -> str:
    """A path as text that JSON and one terminal line can hold: undecodable bytes and control characters are escaped."""
    decoded = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in decoded)


def _bundled(num_images: int | None) -> ImageSource:
    crops = bundled_crops()
    chosen = tuple(sorted(crops[:num_images], key=lambda crop: crop.id))
    described = describe("bundled", "scikit-image", [(crop.id, crop.file.stat().st_size) for crop in chosen], len(crops))
    return ImageSource(tuple(c.id for c in chosen), tuple(c.source for c in chosen), described, CropReader(chosen))


def _on_disk(path: Path, num_images: int | None, seed: int) -> ImageSource:
    shown = printable(path)
    try:
        if path.is_dir():
            return _folder(path, num_images, seed)
        if not path.exists():
            raise UsageError(f"data {shown!r} does not exist; accepted: {ACCEPTED}")
        if path.suffix.lower() in LIST_SUFFIXES:
            return _listed("list", printable(path.absolute()), _read_list(path), path.parent, num_images, seed)
    except PermissionError as error:
        raise UsageError(f"data {shown!r} cannot be read: permission denied ({printable(error.filename or path)})") from None
    return _files("file", printable(path.absolute()), [(printable(path.name), path)], num_images, seed)


def _folder(folder: Path, num_images: int | None, seed: int) -> ImageSource:
    paths, ignored, unreadable = _walk(folder)
    if not paths:
        others = f" ({ignored} other files, {len(unreadable)} unreadable folders)" if ignored or unreadable else ""
        raise UsageError(f"no image in {printable(folder)!r}{others}; accepted suffixes: {' '.join(sorted(SUFFIXES))}")
    pairs = [(printable(path.relative_to(folder).as_posix()), path) for path in paths]
    return _files("folder", printable(folder.absolute()), pairs, num_images, seed, ignored=ignored, unreadable=unreadable)


def _walk(folder: Path) -> tuple[list[Path], int, list[str]]:
    """Image files below `folder`, number of other files, and the folders that could not be entered. Links are followed once."""
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
            entries = sorted((entry.name, entry.is_dir()) for entry in os.scandir(here))
        except OSError as error:
            if here == folder:
                raise
            unreadable.append(f"{printable(here.relative_to(folder).as_posix())}: {(error.strerror or 'unreadable').lower()}")
            continue
        for name, is_folder in entries:
            hidden = name.startswith(".")  # thumbnails, version control, the `._` twins of some file systems
            if is_folder and not hidden:
                waiting.append(here / name)
            elif not hidden and os.path.splitext(name)[1].lower() in SUFFIXES:
                paths.append(here / name)
            else:
                ignored += 1
    return paths, ignored, sorted(unreadable)


def _read_list(path: Path) -> list[str]:
    """Paths of a list file, one a line; empty lines and lines that start with # are left out. Relative ones: to its folder."""
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UsageError(f"list {printable(path)!r} cannot be read: {(error.strerror or 'error').lower()}") from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _listed(kind: str, location: str, given: list[Any], parent: Path | None, num_images: int | None, seed: int) -> ImageSource:
    """The paths of a list or sequence, repeated ones once; relative ones belong to `parent`."""
    for item in given:
        if not isinstance(item, str | os.PathLike):
            raise UsageError(f"data holds a {type(item).__name__}; accepted: {ACCEPTED}, or a sequence of paths")
    if not given:
        raise UsageError(f"no image: {location or 'the sequence given as data'} names no path")
    distinct = dict.fromkeys(os.fspath(item) for item in given)
    pairs = [(printable(item), (parent or Path()) / Path(item).expanduser()) for item in distinct]
    return _files(kind, location, pairs, num_images, seed, repeated=len(given) - len(distinct))


def _files(
    kind: str, location: str, pairs: list[tuple[str, Path]], num_images: int | None, seed: int, **more: Any
) -> ImageSource:
    pairs = sorted(pairs, key=lambda pair: pair[0])
    chosen = [pairs[i] for i in choose(len(pairs), num_images, seed)]
    ids = tuple(name for name, _ in chosen)
    described = describe(kind, location, [(name, _size(path)) for name, path in chosen], len(pairs), **more)
    return ImageSource(ids, ids, described, FileReader(tuple(path for _, path in chosen)))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None  # missing or unreachable: told when it is loaded


__all__ = ["ImageSource", "choose", "describe", "open_images", "printable"]

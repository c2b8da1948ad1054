"""A folder of images in an object store or on another file system, by its address:
`s3://BUCKET/FOLDER`, `gs://BUCKET/FOLDER`, `hdfs://HOST/FOLDER`, and what fsspec knows beside.

The file systems are those that Ray Data and pyarrow read through
(https://arrow.apache.org/docs/python/filesystems.html); credentials are found as each of them does.
The images are listed here and read where the model runs, one at a time.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

import pyarrow as pa
from PIL import Image
from pyarrow import fs

from probe.data.images import SUFFIXES, BadImage, read_image
from probe.data.source import ImageSource, choose, describe
from probe.errors import UsageError, first_line


@dataclass(frozen=True)
class StoreReader:
    """Reads images by index. Picklable: each process opens the store for itself."""

    address: str
    names: tuple[str, ...]

    def __call__(self, index: int) -> Image.Image:
        system, root = _opened(self.address)
        try:
            with system.open_input_file(f"{root}/{self.names[index]}") as file:
                content = file.read()
        except (OSError, pa.ArrowException) as error:
            raise BadImage(f"cannot be read: {first_line(error)}") from error
        return read_image(io.BytesIO(content))


def open_store(address: str, num_images: int | None, seed: int) -> ImageSource:
    """The images below an address. Raises UsageError for one that cannot be opened, and where there
    is none.
    """
    try:
        system, root = _opened(address)
        listed = system.get_file_info(fs.FileSelector(root, recursive=True))
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        raise UsageError(f"data {address!r} cannot be opened: {first_line(error)}") from error
    files = {
        os.path.relpath(info.path, root): info.size
        for info in listed
        if info.type == fs.FileType.File
    }
    names = sorted(name for name in files if _is_image(name))
    if not names:
        raise UsageError(
            f"no image in {address!r} ({len(files)} other files); accepted suffixes: "
            f"{' '.join(sorted(SUFFIXES))}"
        )
    chosen = tuple(names[index] for index in choose(len(names), num_images, seed))
    pairs = [(name, files[name]) for name in chosen]
    described = describe("store", address, pairs, len(names), ignored=len(files) - len(names))
    return ImageSource(chosen, chosen, described, StoreReader(address, chosen))


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


@lru_cache(maxsize=4)
def _opened(address: str) -> tuple[fs.FileSystem, str]:
    """A file system, and the place of the folder in it; fsspec's where pyarrow has none."""
    try:
        system, root = fs.FileSystem.from_uri(address)
    except pa.ArrowInvalid:
        import fsspec

        found, root = fsspec.core.url_to_fs(address)
        system = fs.PyFileSystem(fs.FSSpecHandler(found))
    return system, root.rstrip("/")


__all__ = ["open_store"]

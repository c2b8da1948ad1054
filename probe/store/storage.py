"""A folder in some storage that fsspec opens (`s3://BUCKET/FOLDER`, `gs://`, `abfs://`, `file://`,
`memory://`, ...; https://filesystem-spec.readthedocs.io), and what to say where it does not.

Credentials are found as each file system does. What goes wrong is a StorageError, of one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from probe.errors import ProbeError, UsageError, named_first_line, nearest
from probe.store.schema import MANIFEST

# storage of objects has no folders that would have to be made, and a bucket is not made by us
OF_OBJECTS = frozenset(
    ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "ocilake", "oss", "tos")
    + ("tosfs", "hf", "http", "https")
)
TRIAL = ".probe-norms"  # an empty file that shows that the storage can be written
AT_ONCE = 8  # files on their way, where a file system can


class StorageError(ProbeError):
    """Storage that cannot be reached, or refuses; `reason` is what it says itself."""

    reason = ""


class Storage:
    """A folder at an address.

    storage = Storage("s3://bucket/runs/vit")
    storage.manifest()  # its bytes; None: there is none
    for name, data in storage.read(["moments.parquet", "samples/000-norm.parquet"]):
        ...
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._system, root = _opened(address)
        self._root = root.rstrip("/")
        self.name = self._root.rpartition("/")[2]
        if self.name in ("", ".", "..") or "\\" in self.name or "\0" in self.name:
            raise UsageError(f"{address} names no folder: give one, as in {address}/runs/vit")

    def manifest(self) -> bytes | None:
        return self._content(MANIFEST)

    def names(self) -> list[str]:
        """Of what lies in the folder itself, sorted. Raises UsageError for a file."""
        with _reaching(self.address, "read"):
            self._system.invalidate_cache()
            try:
                entries = self._system.ls(self._root, detail=True)
            except FileNotFoundError:
                return []
        if any(each["name"] == self._root and each["type"] == "file" for each in entries):
            raise UsageError(f"{self.address} is a file; give a folder")
        inside = (self._inside(each["name"].rstrip("/")) for each in entries)
        return sorted(name for name in inside if name and name != TRIAL)

    def sizes(self) -> dict[str, int]:
        """Name of each file in the folder and below -> bytes."""
        with _reaching(self.address, "read"):
            self._system.invalidate_cache()
            entries = self._system.find(self._root, detail=True)
        return {self._inside(path): int(each["size"] or 0) for path, each in entries.items()}

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        """Each file with its content; None: it is not there."""
        with ThreadPoolExecutor(self._at_once) as pool:
            for few in _in_groups(names):
                yield from zip(few, pool.map(self._content, few), strict=True)

    def send(self, files: Mapping[str, Path]) -> Iterator[str]:
        """Puts files of this machine there, under these names; the names as they have arrived."""
        with ThreadPoolExecutor(self._at_once) as pool:
            for few in _in_groups(list(files)):
                sent = pool.map(self._send, few, [files[name] for name in few])
                yield from (name for name, _ in zip(few, sent, strict=True))

    def put(self, name: str, data: bytes) -> None:
        with _reaching(self.address, "written"):
            self._in_folder(name, lambda path: self._system.pipe_file(path, data))

    def remove(self, names: Sequence[str]) -> None:
        with _reaching(self.address, "written"):
            for name in names:
                self._system.rm_file(f"{self._root}/{name}")

    def check_writable(self) -> None:
        """Raises StorageError where nothing can be put there: before the work, not after."""
        self.put(TRIAL, b"")
        with suppress(StorageError):  # there are rights to write that are none to remove
            self.remove([TRIAL])

    @property
    def _at_once(self) -> int:
        return AT_ONCE if getattr(self._system, "async_impl", False) else 1

    @property
    def _of_objects(self) -> bool:
        names = self._system.protocol
        return not OF_OBJECTS.isdisjoint([names] if isinstance(names, str) else names)

    def _inside(self, path: str) -> str:
        return path.removeprefix(self._root).removeprefix("/")

    def _content(self, name: str) -> bytes | None:
        with _reaching(self.address, "read"):
            try:
                data: bytes = self._system.cat_file(f"{self._root}/{name}")
            except (FileNotFoundError, NotADirectoryError):
                return None
        return data

    def _send(self, name: str, file: Path) -> None:
        with _reaching(self.address, "written"):
            self._in_folder(name, lambda path: self._system.put_file(str(file), path))

    def _in_folder(self, name: str, put: Any) -> None:
        path = f"{self._root}/{name}"
        try:
            put(path)
        except FileNotFoundError:
            if self._of_objects:
                raise
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            put(path)


def _in_groups(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Few at a time: what was read waits in memory."""
    for start in range(0, len(names), AT_ONCE):
        yield names[start : start + AT_ONCE]


@contextmanager
def _reaching(address: str, what: str) -> Iterator[None]:
    """Whatever a file system raises becomes a line: each has exceptions of its own."""
    try:
        yield
    except ProbeError:
        raise
    except Exception as error:
        reason = named_first_line(error)
        line = f"{address} cannot be {what} ({reason}): check the address, the network and the "
        failed = StorageError(f"{line}credentials")
        failed.reason = reason
        raise failed from error


def _opened(address: str) -> tuple[Any, str]:
    """The file system, and the path in it. Raises UsageError for one that is not known, or not
    installed.
    """
    import fsspec

    try:
        opened: tuple[Any, str] = fsspec.core.url_to_fs(address)
        return opened
    except ImportError as error:
        raise UsageError(f"{address} needs {_missing(error)}") from error
    except ValueError as error:
        if (protocol := re.search(r"Protocol not known: (\S+)", str(error))) is None:
            raise UsageError(f"{address} cannot be opened: {named_first_line(error)}") from error
        close = nearest(protocol[1], fsspec.available_protocols())
        raise UsageError(
            f"{address}: storage {protocol[1]!r} is unknown"
            f"{f' (did you mean {close}?)' if close else ''}; known are s3, gs, abfs, hdfs, sftp, "
            "file and what else fsspec opens"
        ) from None
    except Exception as error:
        with _reaching(address, "opened"):
            raise error


def _missing(error: ImportError) -> str:
    """`a package that is not installed (Install s3fs to access S3): pip install s3fs`."""
    from fsspec.registry import known_implementations

    line = named_first_line(error).removeprefix("ImportError: ")
    classes = [each["class"] for each in known_implementations.values() if each.get("err") == line]
    package, _, rest = (classes or [""])[0].partition(".")
    if package == "fsspec":
        extra = rest.split(".")[1]
        extras = metadata.metadata("fsspec").get_all("Provides-Extra") or []
        package = f"'fsspec[{extra}]'" if extra in extras else ""
    install = f": pip install {package.replace('_', '-')}" if package else ""
    return f"a package that is not installed ({line}){install}"


__all__ = ["TRIAL", "Storage", "StorageError"]

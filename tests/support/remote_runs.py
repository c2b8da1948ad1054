"""Storage in memory for the tests of runs at addresses, and machines that share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from probe import errors
from probe.store import copies, remote

ADDRESS = "memory://bucket/runs/vit"


_machines: dict[Path, tuple[dict[Any, Any], dict[Any, Any]]] = {}


def on_machine(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """From here on this process is the machine with this cache, and knows what that has opened."""
    opened, shown = _machines.setdefault(cache, ({}, {}))
    cache.mkdir(exist_ok=True)
    monkeypatch.setattr(copies, "cache_folder", lambda: cache)
    monkeypatch.setattr(remote, "_opened", opened)
    monkeypatch.setattr(errors, "_COPIES", shown)


def emptied_memory() -> MemoryFileSystem:
    """The storage at memory://, which every test of a process has."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return MemoryFileSystem()


def stored(address: str = ADDRESS) -> dict[str, bytes]:
    """Name of each file at an address in memory -> its content."""
    system, root = MemoryFileSystem(), address.removeprefix("memory:/")
    return {path[len(root) + 1 :]: system.cat_file(path) for path in sorted(system.find(root))}


def on_disk(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def calls_of(monkeypatch: pytest.MonkeyPatch, *methods: str) -> list[str]:
    """The names of files that these methods of the storage are called with, as they come."""
    names: list[str] = []
    for method in methods:
        whole = getattr(MemoryFileSystem, method)
        place = 1 if method == "put_file" else 0

        def call(
            self: Any, *paths: Any, _whole: Any = whole, _place: int = place, **more: Any
        ) -> Any:
            names.append(str(paths[_place]).partition("/vit/")[2])
            return _whole(self, *paths, **more)

        monkeypatch.setattr(MemoryFileSystem, method, call)
    return names


@contextmanager
def refusing(
    method: str, error: BaseException, when: Callable[[str], bool] = lambda name: True
) -> Iterator[None]:
    """The storage raises `error` where this method is called with such a name."""
    with pytest.MonkeyPatch.context() as patch:
        whole = getattr(MemoryFileSystem, method)

        def call(self: Any, *paths: Any, **more: Any) -> Any:
            if any(when(path) for path in paths if isinstance(path, str)):
                raise error
            return whole(self, *paths, **more)

        patch.setattr(MemoryFileSystem, method, call)
        yield


__all__ = ["ADDRESS", "calls_of", "emptied_memory", "on_disk", "on_machine", "refusing", "stored"]

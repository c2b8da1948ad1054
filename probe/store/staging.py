"""The hidden siblings of a run that is being written, and what killed writers leave of them.

`.NAME.PID-HOST-TOKEN.unfinished` is a run on its way, `.replaced` an old run that is about to go. A
sibling of a living process, or of another machine on a shared disk, is never touched.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

_PATTERN = re.compile(
    r"\.(?P<stem>.+)\.(?P<pid>\d+)-(?P<host>[0-9a-f]{8})-[0-9a-f]{8}\.(?P<kind>unfinished|replaced)",
    re.DOTALL,
)
_ASIDE = re.compile(r"\.(?P<pid>\d+)-(?P<host>[0-9a-f]{8})-[0-9a-f]{8}\.results")


def sibling(out: Path, kind: str) -> Path:
    """A fresh hidden name beside `out`; kind is `unfinished` or `replaced`."""
    return out.with_name(f".{stem(out)}.{os.getpid()}-{_host()}-{os.urandom(4).hex()}.{kind}")


def is_hidden(path: Path) -> bool:
    return _PATTERN.fullmatch(path.name) is not None


def clean(out: Path) -> None:
    """Removes what killed writers of `out` left. An old run whose replacement never arrived moves
    back.
    """
    for path, kind in _abandoned(out):
        if kind == "replaced" and not out.exists():
            path.rename(out)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _abandoned(out: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(out.parent.iterdir()):
        match = _PATTERN.fullmatch(path.name)
        if (
            match
            and match["stem"] == stem(out)
            and match["host"] == _host()
            and not _alive(int(match["pid"]))
        ):
            yield path, match["kind"]


def stem(out: Path) -> str:
    """The name of the run, cut to what leaves room for the rest in a file name."""
    if len(os.fsencode(out.name)) <= 100:
        return out.name
    return f"{out.name[:20]}-{hashlib.sha256(os.fsencode(out.name)).hexdigest()[:16]}"


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _alive(pid: int) -> bool:
    # signal 0 is not a question there; rather leave a folder behind than end a process
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it exists and belongs to somebody else
        return True
    return True


def aside(run: Path) -> Path:
    """A fresh hidden name inside a run, for files on their way into it."""
    return run / f".{os.getpid()}-{_host()}-{os.urandom(4).hex()}.results"


def is_aside(name: str) -> bool:
    return _ASIDE.fullmatch(name) is not None


def clean_aside(run: Path) -> None:
    """Removes what killed jobs left inside of a run."""
    for path in sorted(run.iterdir()):
        match = _ASIDE.fullmatch(path.name)
        if match and match["host"] == _host() and not _alive(int(match["pid"])):
            shutil.rmtree(path, ignore_errors=True)

"""The hidden siblings of a run that is being written, and what killed writers leave of them.

`.NAME.PID-HOST-TOKEN.unfinished` is a run on its way, `.replaced` an old run that is about to go. A
sibling of a living process, or of another machine on a shared disk, is never touched.
`.PID-HOST-TOKEN.results` inside of a folder: see probe.store.journal.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import time
from pathlib import Path

_PATTERN = re.compile(
    r"\.(?P<stem>.+)\.(?P<pid>\d+)-(?P<host>[0-9a-f]{8})-[0-9a-f]{8}\.(?P<kind>unfinished|replaced)",
    re.DOTALL,
)
_ASIDE = re.compile(r"\.(?P<pid>\d+)-(?P<host>[0-9a-f]{8})-[0-9a-f]{8}\.results")
_OLD_ASIDE = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp", re.DOTALL)
WAITS, WAIT = 100, 0.01  # times, seconds


def sibling(out: Path, kind: str) -> Path:
    """A fresh hidden name beside `out`; kind is `unfinished` or `replaced`."""
    return out.with_name(f".{stem(out)}.{os.getpid()}-{_host()}-{os.urandom(4).hex()}.{kind}")


def is_hidden(path: Path) -> bool:
    return _PATTERN.fullmatch(path.name) is not None


def clean(out: Path) -> None:
    """Removes what killed writers of `out` left. An old run whose replacement never arrived moves
    back.
    """
    bring_back(out)
    for path in _abandoned(out):
        shutil.rmtree(path, ignore_errors=True)


def bring_back(out: Path) -> None:
    """Ends what a killed writer began when it gave a new run the name of an old one: the old one
    has its name again where the new one did not get it, else it goes. A living writer in between
    its two renames is waited for.
    """
    for path in _replaced(_abandoned(out)):
        if out.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(out)
    for _ in range(WAITS):
        if out.exists() or not _replaced(_siblings(out)):
            return
        time.sleep(WAIT)


def _replaced(siblings: list[Path]) -> list[Path]:
    return [path for path in siblings if path.name.endswith(".replaced")]


def _abandoned(out: Path) -> list[Path]:
    """Hidden siblings of a run that a process of this machine made, and that has ended."""
    return [path for path in _siblings(out) if _is_dead(_PATTERN.fullmatch(path.name))]


def _siblings(out: Path) -> list[Path]:
    """What writers of a run have beside it, sorted."""
    names = (name for name in os.listdir(out.parent) if name.startswith("."))
    matches = (_PATTERN.fullmatch(name) for name in names)
    own = stem(out)
    return sorted(out.with_name(match[0]) for match in matches if match and match["stem"] == own)


def _is_dead(match: re.Match[str] | None) -> bool:
    return bool(match and match["host"] == _host() and not _alive(int(match["pid"])))


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


def aside(folder: Path) -> Path:
    """A fresh hidden name inside a folder, for files on their way into it."""
    return folder / f".{os.getpid()}-{_host()}-{os.urandom(4).hex()}.results"


def is_aside(name: str) -> bool:
    return _ASIDE.fullmatch(name) is not None


def is_left_over(name: str) -> bool:
    """Is this a place of files on their way, also as earlier versions named them?"""
    return is_aside(name) or _OLD_ASIDE.fullmatch(name) is not None


def asides(folder: Path) -> list[Path]:
    """Where jobs write, or wrote, files on their way into a folder; links are none."""
    with os.scandir(folder) as entries:
        names = [each.name for each in entries if is_aside(each.name) and not each.is_symlink()]
    return [folder / name for name in sorted(names)]


def is_abandoned(place: Path) -> bool:
    """Did a process of this machine make this place, and end?"""
    return _is_dead(_ASIDE.fullmatch(place.name))

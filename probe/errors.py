"""The errors a user meets. Each message is one line: what was given, what is accepted, what to do.

The command line prints the message and leaves with `exit_code`; from Python they are ordinary
exceptions.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_COPIES: dict[str, str] = {}  # folder of this machine -> the address of which it holds a copy


def stands_for(folder: str, address: str) -> None:
    """From here on, messages and results name this folder by the address of which it is a copy."""
    _COPIES[folder] = address


def shown(place: object) -> str:
    """A path, or any text, as the user knows it: addresses in place of the folders that hold copies
    of what is there.
    """
    text = str(place)
    for folder, address in _COPIES.items():
        text = text.replace(folder, address)
    return text


class ProbeError(Exception):
    """The job failed although it was asked for correctly (no images could be read, disk full, no
    network).
    """

    exit_code = 1

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(shown(each) if isinstance(each, str) else each for each in arguments))


class UsageError(ProbeError, ValueError):
    """The job was asked for wrongly (unknown name, number out of range, existing run)."""

    exit_code = 2


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """`, ` joined names of `known` that look most like `name`; an empty string if none does."""
    return ", ".join(difflib.get_close_matches(name, list(known), n=n, cutoff=0.5))


def unknown(what: str, given: str, known: Iterable[str]) -> UsageError:
    """The one line for a name that is not in a short registry: lists the known names and the
    nearest.
    """
    names = list(known)
    close = nearest(given, names)
    return UsageError(
        f"{what} {given!r} is unknown{f' (did you mean {close}?)' if close else ''}; known: "
        f"{', '.join(names)}"
    )


def known_names(what: str, names: Iterable[str] | None, accepted: Iterable[str]) -> list[str]:
    """The chosen names, one or several, each once; None: all that are accepted. Raises UsageError
    for an unknown one and for none at all.
    """
    known = list(accepted)
    wanted = known if names is None else [names] if isinstance(names, str) else names
    chosen = list(dict.fromkeys(wanted))
    for name in chosen:
        if name not in known:
            raise unknown(what, name, known)
    if not chosen:
        raise UsageError(f"no {what} given; known: {', '.join(known)}")
    return chosen


def first_line(error: BaseException) -> str:
    """What an error says, in one line; the name of its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def last_line(error: BaseException) -> str:
    """The cause, where a report of many lines ends with it; of an empty one its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def named_first_line(error: BaseException) -> str:
    """`ValueError: what it says`, for errors whose text alone does not tell what went wrong."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"


@contextmanager
def quiet(logger: str, level: int) -> Iterator[None]:
    """A library's logger from `level` on only: what it logs below is told by an error of one line.

    with quiet("timm.models", logging.ERROR): ...
    """
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(level)
    try:
        yield
    finally:
        log.setLevel(before)

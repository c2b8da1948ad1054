"""The option --norm-type: normalization classes of the user's own, for one command."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from probe.errors import UsageError, first_line, nearest

EXAMPLE = "mypkg.layers:MyNorm=rms_norm"


@contextmanager
def norm_classes(texts: Sequence[str] | None) -> Iterator[None]:
    """While the block runs, the classes of texts such as `mypkg.layers:MyNorm=rms_norm` are read
    as the kinds that they name.

    Right of the `=` stands a kind, or a function as MODULE:NAME. Modules are looked for from the
    current directory, too. Raises UsageError for a text that says no such thing.
    """
    if not texts:
        yield
        return
    from probe.models.reading.registry import REGISTERED

    before = dict(REGISTERED)
    try:
        for text in texts:
            try:
                _register(text)
            except UsageError as error:
                raise UsageError(f"--norm-type {text}: {error}") from error
        yield
    finally:
        REGISTERED.clear()
        REGISTERED.update(before)


def _register(text: str) -> None:
    place, equals, like = text.partition("=")
    if not equals or not like or not re.fullmatch(r"[\w.]+:[\w.]+", place):
        raise UsageError(f"must be MODULE:CLASS=KIND, e.g. {EXAMPLE}")
    from probe.models.reading.registration import register_norm

    register_norm(_named_object(place), _named_object(like) if ":" in like else like)


def _named_object(place: str) -> Any:
    """What MODULE:NAME means; NAME may have dots."""
    module_name, _, path = place.partition(":")
    value: Any = _imported(module_name)
    for name in path.split("."):
        if not hasattr(value, name):
            close = nearest(name, dir(value))
            hint = f" (did you mean {close}?)" if close else ""
            raise UsageError(f"module {module_name!r} has no {path!r}{hint}")
        value = getattr(value, name)
    return value


def _imported(name: str) -> Any:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # an import runs the user's code, which may raise all
        raise UsageError(
            f"module {name!r} cannot be imported: {first_line(error)} (looked for in {here} and "
            "among the installed packages)"
        ) from error
    finally:
        sys.path.remove(here)

"""`--offline` for data sets of the hub: what is in the cache is used, and nothing is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
MODULES = ("huggingface_hub.constants", "datasets.config")


@contextmanager
def hub_left_alone(offline: bool) -> Iterator[None]:
    """The libraries look at their environment when they are imported, and at these names later."""
    if not offline:
        yield
        return
    modules = [vars(sys.modules[name]) for name in MODULES if name in sys.modules]
    before = {name: os.environ.get(name) for name in SWITCHES}
    switched = [
        (names, {name: names[name] for name in SWITCHES if name in names}) for names in modules
    ]
    os.environ.update(dict.fromkeys(SWITCHES, "1"))
    for names, values in switched:
        names.update(dict.fromkeys(values, True))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})
        for names, values in switched:
            names.update(values)


def offline_means_all(function: Callable[P, T]) -> Callable[P, T]:
    """`offline=True` of a function holds for its data, too."""

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        with hub_left_alone(bool(options.get("offline"))):
            return function(*args, **options)

    return call


__all__ = ["hub_left_alone", "offline_means_all"]

"""`--offline` for data sets of the hub: what is in the cache is used, and nothing is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

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

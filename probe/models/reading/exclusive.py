"""One capture at a time of a module: two would mix what they see."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from probe.errors import UsageError

_lock = threading.Lock()
_watched: set[int] = set()  # ids of the modules that a block of `alone` keeps alive


@contextmanager
def alone(module: nn.Module) -> Iterator[None]:
    """Nobody else captures `module`, or a part of it, inside of the block. Raises UsageError where
    somebody does: another thread, or a block around this one.
    """
    own = {id(part) for part in module.modules()}
    with _lock:
        if own & _watched:
            raise UsageError(
                f"module {type(module).__name__} is being captured already, by another thread or "
                "around this call, and what both see would be mixed: wait for it, or capture a "
                "copy that was made before (copy.deepcopy)"
            )
        _watched.update(own)
    try:
        yield
    finally:
        with _lock:
            _watched.difference_update(own)


__all__ = ["alone"]

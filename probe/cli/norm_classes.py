"""The option --norm-type: normalization classes of the user's own, for one command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def norm_classes(texts: Sequence[str] | None) -> Iterator[None]:
    """While the block runs, the classes of texts such as `mypkg.layers:MyNorm=rms_norm` are read
    as the kinds that they name.
    """
    if not texts:
        yield
        return
    from probe.models.reading.registration import registered_by_name

    with registered_by_name(texts):
        yield

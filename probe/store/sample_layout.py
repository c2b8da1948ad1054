"""The samples of one layer as tables: whole channels at a time, so that what is laid out beside the
samples themselves takes a few megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from probe.compiling import compiled
from probe.records import STRATA
from probe.store.schema import SAMPLE_SCHEMA, VALUES

SQUARE = 32  # rows and channels
GROUP_ROWS = 1 << 17  # aim of a row group of samples; always whole channels
Arrays = Mapping[str, NDArray[Any]]


def sample_groups(
    layer: str,
    uniform: Mapping[str, Any],
    prefix: Mapping[str, Any] | None,
    tail: Mapping[str, Any] | None,
) -> Iterator[pa.Table]:
    """The row groups of one layer: samples sorted by channel, stratum, image, position.

    uniform, prefix: image (N,), position (N,), input, normalized, output (N, C). tail: six arrays
    (T,), with `channel`.
    """
    samples = _Samples(layer, uniform, prefix, tail)
    per_group = max(1, GROUP_ROWS // max(1, samples.rows))
    for first in range(0, samples.channels, per_group):
        yield samples.of_channels(first, min(first + per_group, samples.channels))


class _Samples:
    """All that is kept of one layer: the same `rows` rows in every channel, and the tail."""

    def __init__(
        self,
        layer: str,
        uniform: Mapping[str, Any],
        prefix: Mapping[str, Any] | None,
        tail: Mapping[str, Any] | None,
    ) -> None:
        self.layer, self.tail = layer, _elements(tail)
        self.strata = [_rows(STRATA[0], uniform)]
        if prefix is not None:
            self.strata.append(_rows(STRATA[1], prefix))
        self.rows = sum(len(part["image"]) for part in self.strata)
        self.channels = self._same_channels()

    def _same_channels(self) -> int:
        channels = {part["input"].shape[1] for part in self.strata}
        if len(channels) > 1:
            raise ValueError(
                f"layer {self.layer!r}: strata disagree about the number of channels: "
                f"{sorted(channels)}"
            )
        of_tail = self.tail["channel"]
        if len(of_tail) and not 0 <= of_tail[0] <= of_tail[-1] < max(channels):
            raise ValueError(
                f"tail channels reach from {of_tail[0]} to {of_tail[-1]}; the layer has "
                f"{max(channels)}"
            )
        return channels.pop()

    def of_channels(self, first: int, last: int) -> pa.Table:
        """The table of the channels first .. last - 1."""
        cut = slice(*np.searchsorted(self.tail["channel"], [first, last]))
        tail = {name: array[cut] for name, array in self.tail.items()}
        layout = _Layout(first, last, self.rows, tail)
        columns = [
            _dictionary(np.zeros(layout.total, np.int32), [self.layer]),
            *(pa.array(layout.place(name, self.strata)) for name in ("image", "position")),
            pa.array(layout.channel()),
            *(pa.array(layout.place(name, self.strata)) for name in VALUES),
            _dictionary(layout.place("stratum", self.strata), list(STRATA)),
        ]
        return pa.Table.from_arrays(columns, schema=SAMPLE_SCHEMA)


def _dictionary(codes: NDArray[Any], texts: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(texts), safe=False)


def _rows(stratum: str, rows: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """One stratum of whole rows, sorted by image and position, checked for its shapes."""
    image, position = (np.asarray(rows[name], dtype=np.int32) for name in ("image", "position"))
    values = {name: np.asarray(rows[name], dtype=np.float32) for name in VALUES}
    shapes = {array.shape for array in values.values()}
    if (
        len(shapes) > 1
        or values["input"].ndim != 2
        or not image.shape == position.shape == values["input"].shape[:1]
    ):
        given = {name: np.shape(rows[name]) for name in ("image", "position", *VALUES)}
        raise ValueError(
            f"{stratum} rows must have the shapes (N,), (N,), (N, C), (N, C), (N, C), not {given}"
        )
    order = np.lexsort((position, image))
    if not np.array_equal(order, np.arange(len(order))):
        image, position = image[order], position[order]
        values = {name: array[order] for name, array in values.items()}
    codes = np.full(len(image), STRATA.index(stratum), np.int8)
    return {"stratum": codes, "image": image, "position": position, **values}


def _elements(tail: Mapping[str, Any] | None) -> dict[str, NDArray[Any]]:
    """The tail, sorted by channel, image, position; empty arrays where there is none."""
    kinds = {
        name: SAMPLE_SCHEMA.field(name).type.to_pandas_dtype()
        for name in ("image", "position", "channel", *VALUES)
    }
    arrays = {
        name: np.asarray(tail[name] if tail else (), dtype=kind) for name, kind in kinds.items()
    }
    if any(array.shape != (len(arrays["channel"]),) for array in arrays.values()):
        raise ValueError(
            "tail arrays must all have the shape (T,), not "
            f"{ ({n: a.shape for n, a in arrays.items()}) }"
        )
    order = np.lexsort((arrays["input"], arrays["position"], arrays["image"], arrays["channel"]))
    return {
        "stratum": np.full(len(order), 2, np.int8),
        **{name: array[order] for name, array in arrays.items()},
    }


class _Layout:
    """Where everything lies in the columns of some channels: per channel first its `rows` rows,
    then its part of the tail.
    """

    def __init__(self, first: int, last: int, rows: int, tail: Arrays) -> None:
        self.first, self.last, self.rows, self.tail = first, last, rows, tail
        channel = tail["channel"].astype(np.int64) - first
        self.per_channel = rows + np.bincount(channel, minlength=last - first)
        self.total = int(self.per_channel.sum())
        self.begin = np.cumsum(self.per_channel) - self.per_channel
        self.tail_index = np.arange(len(channel)) + rows * (channel + 1)

    def place(self, name: str, strata: list[dict[str, NDArray[Any]]]) -> NDArray[Any]:
        """One column; a stratum has (N,) of what all channels share, else (N, C)."""
        column = np.empty(self.total, dtype=strata[0][name].dtype)
        begin = self.begin
        for part in strata:
            array = part[name]
            if array.ndim == 1:
                _place_shared(column, begin, array)
            else:
                _place_own(column, begin, array, self.first)
            begin = begin + len(array)
        column[self.tail_index] = self.tail[name]
        return column

    def channel(self) -> NDArray[np.int32]:
        return np.repeat(np.arange(self.first, self.last, dtype=np.int32), self.per_channel)


@compiled()
def _place_shared(column: Any, begin: Any, values: Any) -> None:
    """The same values (N,) at begin (C,) of each channel."""
    rows = values.shape[0]
    for first in begin:
        own = column[first : first + rows]
        for row in range(rows):
            own[row] = values[row]


@compiled()
def _place_own(column: Any, begin: Any, values: Any, first: Any) -> None:
    """Column first + c of values (N, channels) at begin[c] of each channel (C,); squares at a time,
    so that what is read together and what is written together lie in few cache lines."""
    channels, rows = begin.shape[0], values.shape[0]
    for c0 in range(0, channels, SQUARE):
        for r0 in range(0, rows, SQUARE):
            square = values[r0 : min(r0 + SQUARE, rows)]
            for c in range(c0, min(c0 + SQUARE, channels)):
                own = column[begin[c] + r0 : begin[c] + r0 + square.shape[0]]
                for row in range(square.shape[0]):
                    own[row] = square[row, first + c]

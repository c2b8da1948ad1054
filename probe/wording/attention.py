"""What the attention table of a run says, in words and per layer: the definitions that the terminal
and the report share.

`heads` are rows of attention.parquet as plain values (`probe.formatting.records`), those of a layer
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import fmean
from typing import Any

Row = Mapping[str, Any]

LOCAL = 0.5  # a head is called local where it looks less than half as far as uniform attention
SHOWN = 3  # unreadable layers named in a line; all of them stand in --json and in the manifest


def per_layer(heads: Sequence[Row]) -> list[dict[str, Any]]:
    """One row per layer (and run), from rows of heads that stand together."""
    groups = groupby(heads, key=lambda row: (row.get("run", ""), row["layer"]))
    return [_layer(list(rows)) for _, rows in groups]


def _layer(heads: list[Row]) -> dict[str, Any]:
    first = heads[0]
    same = {
        name: first.get(name)
        for name in (
            "run",
            "layer",
            "depth",
            "grid",
            "token_stride",
            "uniform_px",
            "windows",
            "images",
        )
    }
    pixels = known(heads, "distance_px")
    return {
        **same,
        "heads": len(heads),
        "local": local(heads),
        "distance_px": fmean(pixels) if pixels else None,
        "low": min(pixels, default=None),
        "high": max(pixels, default=None),
        **{name: mean(heads, name) for name in ("distance_patches", "prefix_mass", "entropy")},
    }


def local(heads: Sequence[Row]) -> int | None:
    """How many heads look less than half as far as uniform attention; None where pixels are not
    known.
    """
    told = [
        row
        for row in heads
        if row.get("distance_px") is not None and row.get("uniform_px") is not None
    ]
    return sum(row["distance_px"] < LOCAL * row["uniform_px"] for row in told) if told else None


def known(heads: Sequence[Row], name: str) -> list[float]:
    return [row[name] for row in heads if row.get(name) is not None]


def mean(heads: Sequence[Row], name: str) -> float | None:
    values = known(heads, name)
    return fmean(values) if values else None


def count(heads: Sequence[Row]) -> str:
    """`48 heads in 12 layers: 10 local (they look less than half as far as uniform attention)`."""
    layers = len({(row.get("run"), row["layer"]) for row in heads})
    total = (
        f"{len(heads)} head{'s' if len(heads) != 1 else ''} in {layers} "
        f"layer{'s' if layers != 1 else ''}"
    )
    near = local(heads)
    return (
        total
        if near is None
        else f"{total}: {near} local (mean distance under half of that of uniform attention)"
    )


def not_read(record: Mapping[str, Any] | None) -> list[str]:
    """The one line about attention that was not read; `record` is the manifest's entry `attention`.
    Nothing where it was not asked.
    """
    told = record or {}
    if told.get("status") == "none":
        return ["attention: none, the model computes none"]
    reasons = list((told.get("unreadable") or {}).items())
    if not reasons:
        return []
    named = ", ".join(
        f"{path or 'the model itself'} ({reason})" for path, reason in reasons[:SHOWN]
    )
    return [
        "attention that cannot be read: "
        f"{named}{f' and {len(reasons) - SHOWN} more' if len(reasons) > SHOWN else ''}"
    ]


def was_read(record: Mapping[str, Any] | None) -> bool:
    return (record or {}).get("status") in ("captured", "partial")

"""What the attention table of a run says, in words and per layer: the definitions that the terminal
and the report share.

`heads` are rows of attention.parquet as plain values (`probe.formatting.records`), those of a layer
together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from statistics import fmean
from typing import Any

from probe.formatting import number, percent
from probe.wording.phrases import Finding, Row, listed, plural, rows_with, values_of

LOCAL = 0.5  # a head is called local where it looks less than half as far as uniform attention
SHOWN = 3  # unreadable layers named in a line; all of them stand in --json and in the manifest
READ = ("captured", "partial")  # statuses of the manifest's record that come with a table

LAYER_WIDE = ("run", "layer", "depth", "grid", "token_stride", "uniform_px", "windows", "images")
MEANS = ("distance_px", "distance_patches", "prefix_mass", "entropy")


def per_layer(heads: Sequence[Row]) -> list[dict[str, Any]]:
    """One row per layer (and run), from rows of heads that stand together."""
    groups = groupby(heads, key=lambda row: (row.get("run", ""), row["layer"]))
    return [_layer(list(rows)) for _, rows in groups]


def _layer(heads: list[Row]) -> dict[str, Any]:
    pixels = values_of(heads, "distance_px")
    return {
        **{name: heads[0].get(name) for name in LAYER_WIDE},
        **{name: mean(heads, name) for name in MEANS},
        "heads": len(heads),
        "local": local(heads),
        "low": min(pixels, default=None),
        "high": max(pixels, default=None),
    }


def local(heads: Sequence[Row]) -> int | None:
    """How many heads look less than half as far as uniform attention; None where pixels are not
    known.
    """
    measured = rows_with(rows_with(heads, "distance_px"), "uniform_px")
    if not measured:
        return None
    return sum(row["distance_px"] < LOCAL * row["uniform_px"] for row in measured)


def mean(heads: Sequence[Row], name: str) -> float | None:
    values = values_of(heads, name)
    return fmean(values) if values else None


def count(heads: Sequence[Row]) -> str:
    """`48 heads in 12 layers: 10 local (they look less than half as far as uniform attention)`."""
    layers = len({(row.get("run"), row["layer"]) for row in heads})
    total, near = f"{plural(len(heads), 'head')} in {plural(layers, 'layer')}", local(heads)
    if near is None:
        return total
    return f"{total}: {near} local (mean distance under half of that of uniform attention)"


def reach(heads: Sequence[Row]) -> str:
    """`distance 13.1 to 18.6 px`; empty where pixels are not known."""
    pixels = values_of(heads, "distance_px")
    return f"distance {number(min(pixels))} to {number(max(pixels))} px" if pixels else ""


def was_read(record: Mapping[str, Any] | None) -> bool:
    """Is there a table? `record` is the manifest's entry `attention`."""
    return (record or {}).get("status") in READ


def not_read(record: Mapping[str, Any] | None) -> list[str]:
    """The one line about attention that was not read; nothing where it was not asked."""
    record = record or {}
    if record.get("status") == "none":
        return ["attention: none, the model computes none"]
    reasons = dict(record.get("unreadable") or {})
    named = [f"{path or 'the model itself'} ({reason})" for path, reason in reasons.items()]
    return [f"attention that cannot be read: {listed(named, SHOWN)}"] if named else []


def attention_findings(heads: Sequence[Row], computed: bool = True) -> list[Finding]:
    """What was found of the attention heads; `computed`: False for a model that has none."""
    if not computed:
        return [Finding("Attention", "The model computes none.")]
    return [Finding("Attention", " ".join(_sentences(heads)))] if heads else []


def _sentences(heads: Sequence[Row]) -> Iterator[str]:
    yield f"{count(heads)}."
    if pixels := rows_with(heads, "distance_px"):
        yield from _distances(pixels)
    if any(values_of(heads, "prefix_mass")):
        most = max(rows_with(heads, "prefix_mass"), key=lambda row: row["prefix_mass"])
        yield (
            f"Patches put {percent(mean(heads, 'prefix_mass'))} % of their attention on class and "
            f"register tokens on average, {percent(most['prefix_mass'])} % in {_head(most)}."
        )


def _distances(heads: Sequence[Row]) -> Iterator[str]:
    """The heads that look nearest and farthest, and how the layers change along depth."""
    near, far = (pick(heads, key=lambda row: row["distance_px"]) for pick in (min, max))
    yield (
        f"Nearest: {_head(near)} with {number(near['distance_px'])} px; farthest: {_head(far)} "
        f"with {number(far['distance_px'])} px (heads count from 1)."
    )
    means = values_of(per_layer(heads), "distance_px")
    if len(means) > 1:
        yield (
            f"The mean of a layer goes from {number(means[0])} px in the first to "
            f"{number(means[-1])} px in the last one."
        )


def _head(row: Row) -> str:
    """As the figures name it: the first head is 1."""
    return f"head {row['head'] + 1} of {row['layer']}"

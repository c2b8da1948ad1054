"""How far the attention heads of a model look, for people: one row per layer, then what to know about them in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import fmean
from typing import Any

from probe.cli.tables import Column, Grid, Row
from probe.values import number, records, share

LOCAL = 0.5  # a head is called local where it looks less than half as far as uniform attention
SHOWN = 3  # unreadable layers named in a line; all of them stand in --json and in the manifest


def per_layer(heads: Sequence[Row]) -> list[dict[str, Any]]:
    """One row per layer (and run), from rows of heads that stand together."""
    groups = groupby(heads, key=lambda row: (row.get("run", ""), row["layer"]))
    return [_layer(list(rows)) for _, rows in groups]


def _layer(heads: list[Row]) -> dict[str, Any]:
    first = heads[0]
    same = {
        name: first.get(name) for name in ("run", "layer", "depth", "grid", "token_stride", "uniform_px", "windows", "images")
    }
    pixels = _known(heads, "distance_px")
    return {
        **same,
        "heads": len(heads),
        "local": local(heads),
        "distance_px": fmean(pixels) if pixels else None,
        "low": min(pixels, default=None),
        "high": max(pixels, default=None),
        **{name: _mean(heads, name) for name in ("distance_patches", "prefix_mass", "entropy")},
    }


def local(heads: Sequence[Row]) -> int | None:
    """How many heads look less than half as far as uniform attention; None where pixels are not known."""
    known = [row for row in heads if row.get("distance_px") is not None and row.get("uniform_px") is not None]
    return sum(row["distance_px"] < LOCAL * row["uniform_px"] for row in known) if known else None


def _known(heads: Sequence[Row], name: str) -> list[float]:
    return [row[name] for row in heads if row.get(name) is not None]


def _mean(heads: Sequence[Row], name: str) -> float | None:
    values = _known(heads, name)
    return fmean(values) if values else None


def columns(rows: Sequence[Row]) -> list[Column]:
    """The columns for these rows of layers; what no row has is left out."""

    def has(name: str) -> bool:
        return any(row.get(name) is not None for row in rows)

    pixels = has("distance_px")
    found = {
        Column("layer", lambda row: str(row["layer"]), left=True): True,
        Column("run", lambda row: str(row["run"]), rank=1, left=True): has("run"),
        Column("heads", lambda row: str(row["heads"])): True,
        Column("distance px", lambda row: number(row["distance_px"])): pixels,
        Column("min .. max", lambda row: f"{number(row['low'])} .. {number(row['high'])}", rank=1): pixels,
        Column("patches", lambda row: number(row["distance_patches"]), rank=5 if pixels else 0): True,
        Column("uniform px", lambda row: number(row["uniform_px"])): pixels,
        Column("local", lambda row: "-" if row["local"] is None else str(row["local"])): pixels,
        Column("prefix %", lambda row: share(row["prefix_mass"]), rank=2): any(row.get("prefix_mass") for row in rows),
        Column("entropy", lambda row: number(row["entropy"]), rank=3): True,
        Column("grid", lambda row: str(row["grid"]), rank=4, left=True): True,
        Column("stride px", lambda row: number(row["token_stride"]), rank=6): has("token_stride"),
        Column("windows", lambda row: str(row["windows"]), rank=4): any((row.get("windows") or 1) > 1 for row in rows),
    }
    return [column for column, wanted in found.items() if wanted]


def left_out(grid: Grid) -> list[str]:
    """Which columns the terminal had no room for."""
    names = [column.header for column in grid.dropped]
    return [f"no room for: {', '.join(names)} (a wider terminal or --json shows them)"] if names else []


def count(heads: Sequence[Row]) -> str:
    """`48 heads in 12 layers: 10 local (they look less than half as far as uniform attention)`."""
    layers = len({(row.get("run"), row["layer"]) for row in heads})
    total = f"{len(heads)} head{'s' if len(heads) != 1 else ''} in {layers} layer{'s' if layers != 1 else ''}"
    near = local(heads)
    return total if near is None else f"{total}: {near} local (mean distance under half of that of uniform attention)"


def not_read(record: Mapping[str, Any] | None) -> list[str]:
    """The one line about attention that was not read; `record` is the manifest's entry `attention`. Nothing where it was not asked."""
    told = record or {}
    if told.get("status") == "none":
        return ["attention: none, the model computes none"]
    reasons = list((told.get("unreadable") or {}).items())
    if not reasons:
        return []
    named = ", ".join(f"{path or 'the model itself'} ({reason})" for path, reason in reasons[:SHOWN])
    return [f"attention that cannot be read: {named}{f' and {len(reasons) - SHOWN} more' if len(reasons) > SHOWN else ''}"]


def of_run(run: Any) -> list[str]:
    """What the result of a whole run says of attention: a line with the range of distances, and what could not be read."""
    record = run.manifest.get("attention")
    if not was_read(record):
        return not_read(record)
    heads = records(run.attention())
    pixels = _known(heads, "distance_px")
    reach = f", distance {number(min(pixels))} to {number(max(pixels))} px" if pixels else ""
    return [f"attention: {count(heads)}{reach}", *not_read(record)]


def document(run: Any) -> dict[str, Any] | None:
    """The JSON form: what the manifest says, and all heads."""
    record = run.manifest.get("attention")
    return {**record, "table": records(run.attention()) if was_read(record) else []} if record else None


def was_read(record: Mapping[str, Any] | None) -> bool:
    return (record or {}).get("status") in ("captured", "partial")

"""The table of a conversion, and the forward passes before and after a change of a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from probe.formatting import number, percent
from probe.wording.columns.captured import AFFINE
from probe.wording.columns.column import Column, any_has, shown_column
from probe.wording.columns.layers import DEPTH, KIND, LAYER
from probe.wording.phrases import Row

ALONE, BEFORE = "the layer replaced alone", "the layer and all before it replaced"


def fate(row: Row) -> str:
    """replaced; kept, not being within the tolerance; or left out, having no curve."""
    return "replaced" if row["replaced"] else "left out" if row["reason"] else "kept"


def _word(value: Any) -> str:
    return str(value or "-")


def _measure(name: str, meaning: str, unit: str, title: str, rank: int = 0) -> Column:
    """Of the layer alone, or with those before it: shown where the former is known."""
    formatted = percent if unit == "share" else number
    column = shown_column(name, meaning, unit, rank, title, formatted)
    return replace(column, wanted=any_has(name.removesuffix("_cumulative")))


def _with_quartiles(row: Row) -> str:
    ratio, low, high = row["ratio"], row["low"], row["high"]
    return "-" if ratio is None else f"{ratio:.2f} [{low:.2f}, {high:.2f}]"


CONVERSION = (
    replace(LAYER, key=None),
    DEPTH,
    replace(KIND, rank=None),
    AFFINE,
    Column(
        "family",
        "The curve in its place; linear: a line.",
        "text",
        format=_word,
        left=True,
        rank=1,
        page=True,
    ),
    _measure("rel_error", f"rms(y' - y) / rms(y) of its output, {ALONE}.", "ratio", "rel. error"),
    _measure("kl", f"KL of the model's outputs from the original's, {ALONE}.", "nats", "KL alone"),
    _measure(
        "agreement",
        f"Images whose largest logit is the same class, {ALONE}.",
        "share",
        "same % alone",
        2,
    ),
    _measure("accuracy", f"Top-1, {ALONE}; where there are labels.", "share", "top-1 % alone", 3),
    _measure(
        "rel_error_cumulative",
        f"Relative error of its output, {BEFORE}.",
        "ratio",
        "error so far",
        4,
    ),
    _measure("kl_cumulative", f"KL, {BEFORE}.", "nats", "KL so far"),
    _measure("agreement_cumulative", f"Same class, {BEFORE}.", "share", "same % so far"),
    _measure("accuracy_cumulative", f"Top-1, {BEFORE}.", "share", "top-1 % so far"),
    Column("replaced", "Is it replaced in the converted model?", "bool"),
    Column("reason", "Why a layer cannot be replaced.", "text"),
    replace(
        _measure(
            "calibrated",
            "How much of the way to its own solution it went when it was calibrated.",
            "share",
            "calibrated %",
        ),
        rank=None,
    ),
    Column(
        "result",
        "replaced; kept, not within the tolerance; left out, having no curve.",
        "text",
        cell=fate,
        key=fate,
        left=True,
        rank=0,
        page=True,
        stored=False,
    ),
)

SPEEDS = (
    Column("mode", "eager, or compiled by torch.", "text", left=True, page=True),
    Column("batch", "Images of a forward pass.", "count", title="images", page=True),
    Column(
        "before_ms", "Milliseconds of the original.", "ms", "before, ms", format=number, page=True
    ),
    Column(
        "after_ms", "Milliseconds of the new network.", "ms", "after, ms", format=number, page=True
    ),
    Column(
        "ratio",
        "How many times as fast it is: median over pairs of passes taken in turns; in brackets the "
        "quartiles.",
        "ratio",
        title="times as fast",
        cell=lambda row: (
            "-"
            if row["ratio"] is None
            else f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        ),
        page=True,
    ),
    Column("low", "Lower quartile of the ratio.", "ratio"),
    Column("high", "Upper quartile of the ratio.", "ratio"),
    Column("pairs", "Pairs of forward passes.", "count", page=True),
    Column("note", "Why there are no numbers.", "text"),
    Column(
        "verdict",
        "faster or slower, where the quartiles agree on it.",
        "text",
        left=True,
        page=True,
    ),
)

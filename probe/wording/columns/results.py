"""Tables of single commands: the affine maps of `fold`, and the key numbers of `compare`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from probe.formatting import number, r_squared
from probe.records import Status
from probe.wording.columns.column import Column
from probe.wording.columns.layers import KIND, LAYER


def _word(value: Any) -> str:
    return str(value) or "-"


FOLD = (
    replace(LAYER, key=None),
    replace(KIND, rank=3, common=False),
    Column(
        "direction",
        "before, after: the whole line goes into the linear layer before it, or into those after "
        "it; affine: its weight and bias go into those after it; alpha: the scale of the input "
        "of a curve goes into the layer before it.",
        "text",
        title="map",
        format=_word,
        left=True,
        rank=1,
        page=True,
    ),
    Column("status", "folded or kept.", "text", left=True, rank=0, page=True),
    Column(
        "into", "The layers that took the map.", "text", format=_word, left=True, rank=2, page=True
    ),
    Column(
        "reason",
        "Why a map is kept.",
        "text",
        format=_word,
        left=True,
        page=True,
        wanted=lambda rows: any(row["reason"] for row in rows),
    ),
)

# One line per number and one column per run where they are shown; their headers are their names.
COMPARED = (
    Column("run", "Name of the run.", "text"),
    Column("model", "Its model.", "text"),
    Column("weights", "pretrained, random or a file.", "text"),
    Column("layers", "Normalization layers.", "count"),
    Column("kinds", "Their types, the most frequent first.", "text"),
    *(
        Column(status.value, f"Layers of that status: {status.meaning}.", "count")
        for status in (Status.CURVED, Status.LINEAR, Status.UNDETERMINED, Status.AFFINE)
    ),
    Column("other", "Layers of any other status.", "count"),
    Column("median_alpha", "Of the layers that have one.", "1/input", format=number),
    Column("median_r2_line", "Of one line for all channels.", "R2", format=r_squared),
    Column("median_r2_tanh", "Of one tanh for all channels.", "R2", format=r_squared),
    Column(
        "median_r2_line_per_channel",
        "Of a line of its own for each channel, over the sampled rows: 1 for BatchNorm.",
        "R2",
        format=r_squared,
    ),
    Column(
        "median_beyond_linear",
        "Share of elements where the curve is less than half as steep as in its centre.",
        "share",
        format=number,
    ),
    Column("median_saturation", "Share of elements with |alpha * x| > 2.", "share", format=number),
    Column("max_abs_input", "Largest input by amount.", "input", format=number),
    Column("heads", "Attention heads.", "count", stored=False),
    Column(
        "local_heads",
        "Heads that look less than half as far as uniform attention.",
        "count",
        stored=False,
    ),
    Column("mean_attention_distance_px", "Mean over heads.", "px", format=number, stored=False),
)
_FORMATS = {column.name: column for column in COMPARED}


def key_number(name: str, value: Any) -> str:
    """A key number as text."""
    return _FORMATS[name].format(value)

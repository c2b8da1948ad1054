"""track.csv, attention.csv of a tracking, and the table of its layers that the terminal and the
page make of it (`probe.wording.tracking.layer_changes`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from probe.formatting import number, percent, whole
from probe.wording.columns.attention import HEADS
from probe.wording.columns.column import Column, any_has
from probe.wording.columns.layers import ALPHAS, KIND, LAYER
from probe.wording.phrases import Row

CHECKPOINT = Column("checkpoint", "Name of the checkpoint's file, and of its run.", "text")
EPOCH = Column(
    "epoch",
    "Number of the checkpoint: of the epoch, where its file says so, else the number in its name, "
    "else its place in the order given.",
    "count",
)

_STORED = (
    *("layer", "depth", "kind", "channels", "status", "established"),
    *("alpha", "alpha_low", "alpha_high", "alpha_channel", "own_alpha"),
    *("gamma", "beta", "slope", "r2", "linear_r2", "r2_ceiling"),
    *("gain", "gain_low", "gain_high", "channel_gain"),
    *("input_std", "inverse_std", "beyond_linear", "saturation", "max_abs_input"),
    *("slope_min", "slope_median", "slope_max"),
    *("massive_channels", "images", "sources", "sources_to_decide"),
)
_BY_NAME = {column.name: column for column in ALPHAS}


def _as_stored(column: Column) -> Column:
    """A column of the alpha table as a file has it."""
    return Column(column.name, column.meaning, column.unit)


TRACK = (
    CHECKPOINT,
    EPOCH,
    Column("reason", "Why the checkpoint could not be opened, where its status is failed.", "text"),
    *(_as_stored(_BY_NAME[name]) for name in _STORED),
    Column("min_input", "Smallest input of the layer.", "input"),
    Column("max_input", "Largest input of the layer.", "input"),
)

TRACKED_HEADS = (CHECKPOINT, EPOCH, *HEADS)


def _pair(name: str, show: Any) -> Any:
    """`0.51 .. 0.12`: at the first and at the last checkpoint."""

    def cell(row: Row) -> str:
        first, last = show(row.get(f"first_{name}")), show(row.get(f"last_{name}"))
        return first if row.get("checkpoints") == 1 else f"{first} .. {last}"

    return cell


def _status(row: Row) -> str:
    first, last = str(row["first_status"]), str(row["last_status"])
    return last if first == last else f"{first} .. {last}".replace("_", " ")


def _since(row: Row) -> str:
    return whole(row.get("since")) + (" (first)" if row.get("from_the_first") else "")


CHANGES = (
    LAYER,
    replace(KIND, rank=7),
    Column(
        "since",
        "The earliest checkpoint from which on the layer is curved at every later one; first: "
        "at all of them.",
        "count",
        title="curved since",
        cell=_since,
        key=lambda row: row.get("since"),
        rank=0,
        page=True,
        stored=False,
    ),
    Column(
        "shape",
        "Status at the first and at the last checkpoint; once where both are the same.",
        "text",
        title="status",
        cell=_status,
        left=True,
        rank=0,
        page=True,
        stored=False,
    ),
    Column(
        "curved",
        "Checkpoints at which the layer is curved.",
        "count",
        format=whole,
        rank=4,
        page=True,
        stored=False,
    ),
    Column(
        "undecided",
        "Checkpoints at which the images decide neither.",
        "count",
        format=whole,
        rank=5,
        page=True,
        wanted=lambda rows: any(row["undecided"] for row in rows),
        stored=False,
    ),
    Column(
        "gain",
        "R2 of the tanh less that of a line, at the first and at the last checkpoint.",
        "R2",
        title="gain",
        cell=_pair("gain", lambda value: number(value, 2)),
        key=lambda row: row.get("last_gain"),
        rank=1,
        page=True,
        wanted=any_has("last_gain"),
        stored=False,
    ),
    Column(
        "alpha",
        "Alpha of the fitted tanh, at the first and at the last checkpoint, established or not.",
        "1/input",
        title="alpha",
        cell=_pair("alpha", number),
        key=lambda row: row.get("last_alpha"),
        rank=1,
        page=True,
        wanted=any_has("last_alpha"),
        stored=False,
    ),
    Column(
        "beyond",
        "Per cent of the elements beyond the linear part of the curve, at the first and at the "
        "last checkpoint.",
        "share",
        title="beyond %",
        cell=_pair("beyond_linear", percent),
        key=lambda row: row.get("last_beyond_linear"),
        rank=2,
        page=True,
        wanted=any_has("last_beyond_linear"),
        stored=False,
    ),
    Column(
        "largest",
        "Largest input by amount, at the first and at the last checkpoint.",
        "input",
        title="max |x|",
        cell=_pair("max_abs_input", number),
        key=lambda row: row.get("last_max_abs_input"),
        rank=3,
        page=True,
        wanted=any_has("last_max_abs_input"),
        stored=False,
    ),
)

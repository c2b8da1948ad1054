"""track.csv, attention.csv of a tracking, and the table of its layers that the terminal and the
page make of it (`probe.wording.tracking.layer_changes`).
"""

from __future__ import annotations

from collections.abc import Callable
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


def _first_and_last(
    name: str,
    meaning: str,
    unit: str,
    title: str,
    of: tuple[str, Callable[[Any], str]],
    rank: int,
) -> Column:
    """`0.51 .. 0.12`: a number of TRACK at the first and at the last checkpoint; sorted by the
    last. of: its column there, and how it is shown.
    """
    number_of, show = of

    def cell(row: Row) -> str:
        first, last = show(row.get(f"first_{number_of}")), show(row.get(f"last_{number_of}"))
        return first if row.get("checkpoints") == 1 else f"{first} .. {last}"

    return Column(
        name,
        meaning,
        unit,
        title=title,
        cell=cell,
        key=lambda row: row.get(f"last_{number_of}"),
        rank=rank,
        page=True,
        wanted=any_has(f"last_{number_of}"),
        stored=False,
    )


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
    _first_and_last(
        "gain",
        "R2 of the tanh less that of a line, at the first and at the last checkpoint.",
        "R2",
        "gain",
        ("gain", lambda value: number(value, 2)),
        rank=1,
    ),
    _first_and_last(
        "alpha",
        "Alpha of the fitted tanh, at the first and at the last checkpoint, established or not.",
        "1/input",
        "alpha",
        ("alpha", number),
        rank=1,
    ),
    _first_and_last(
        "beyond",
        "Per cent of the elements beyond the linear part of the curve, at the first and at the "
        "last checkpoint.",
        "share",
        "beyond %",
        ("beyond_linear", percent),
        rank=2,
    ),
    _first_and_last(
        "largest",
        "Largest input by amount, at the first and at the last checkpoint.",
        "input",
        "max |x|",
        ("max_abs_input", number),
        rank=3,
    ),
)

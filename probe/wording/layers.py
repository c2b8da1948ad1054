"""What the alpha table of a run says, in short cells and lines: the definitions that the terminal
and the report share.

Rows are those of alpha.csv as plain values (`probe.formatting.records`), in execution order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from probe.formatting import number
from probe.records import Status
from probe.wording.phrases import Row, listed, plural

# Compared as text: a table of a later version may hold a status that this one does not know.
SHAPED = frozenset(status for status in Status if status.shaped)


def shaped(rows: Sequence[Row]) -> list[Row]:
    """The S-shaped layers in execution order."""
    return [row for row in rows if row["status"] in SHAPED]


def all_affine(rows: Sequence[Row]) -> bool:
    """Is every layer a fan of lines, so that no table needs a column of curves?"""
    return bool(rows) and all(row["status"] == Status.AFFINE for row in rows)


def gain(row: Row) -> float:
    """R2 of the tanh less that of the line."""
    return row.get("gain") or 0.0


def interval(row: Row) -> str:
    """`0.0691 [0.0672, 0.0709]`; without the brackets where there is no interval, in parentheses
    where the curve is not established.
    """
    if row.get("alpha") is None:
        return "-"
    low, high = row.get("alpha_low"), row.get("alpha_high")
    bounds = f" [{number(low)}, {number(high)}]" if low is not None and high is not None else ""
    text = number(row["alpha"]) + bounds
    return text if row.get("established") else f"({text})"


def tied_families(row: Row) -> list[str]:
    """The families that are not told from the best one."""
    return [name for name in str(row.get("tied") or "").split("|") if name]


def best(row: Row) -> str:
    """The best family, and how many are tied with it: `tanh +2`."""
    name, tied = str(row.get("best_family") or ""), tied_families(row)
    return "-" if not name else f"{name} +{len(tied)}" if tied else name


def slopes(row: Row) -> str:
    """The fan of lines of an affine layer: its smallest and its largest slope over the channels."""
    if row.get("slope_min") is None:
        return "-"
    return f"{number(row['slope_min'])} .. {number(row['slope_max'])}"


def central_slope(row: Row) -> float | None:
    """Slope at the centre; of an affine layer the median over its channels."""
    slope = row.get("slope")
    return row.get("slope_median") if slope is None else slope


def counts(rows: Sequence[Row]) -> str:
    """`17 layers (17 layer_norm of 128 channels): 12 linear, 5 curved`, the most frequent first."""
    if not rows:
        return "no layers"
    frequent = Counter(str(row["status"]) for row in rows).most_common()
    statuses = ", ".join(f"{count} {status}" for status, count in frequent)
    return f"{plural(len(rows), 'layer')} ({kinds(rows)}): {statuses}"


def kinds(rows: Sequence[Row]) -> str:
    """`17 layer_norm of 128 channels`: what all the layers have in common, said once."""
    frequent = Counter(str(row["kind"]) for row in rows).most_common()
    return f"{', '.join(f'{count} {kind}' for kind, count in frequent)} of {_span(rows)} channels"


def _span(rows: Sequence[Row]) -> str:
    """The numbers of channels: `128`, or `64 to 2048`."""
    channels = sorted({int(row["channels"]) for row in rows})
    ends = dict.fromkeys(str(count) for count in (*channels[:1], *channels[-1:]))
    return " to ".join(ends)


def undecided(rows: Sequence[Row]) -> list[Row]:
    """The layers whose images do not tell a curve from a line."""
    return [row for row in rows if row["status"] == Status.UNDETERMINED]


def why_none(rows: Sequence[Row]) -> str:
    """Why no layer is S-shaped, or not known to be; empty where the statuses alone say it."""
    if all_affine(rows):
        return "each channel is exactly a straight line"
    open_ones = undecided(rows)
    return f"{len(open_ones)} not decided" if open_ones else ""


def where_s(rows: Sequence[Row], most: int = 6) -> str:
    """Which layers are S-shaped, the most bent first with its gain over a line."""
    bent = sorted(shaped(rows), key=gain, reverse=True)
    if not bent:
        why = why_none(rows)
        return f"shown to be S-shaped: none{f' ({why})' if why else ''}"
    named = [f"{row['layer']} {gain(row):+.2g}" for row in bent]
    return f"S-shaped: {len(bent)} of {len(rows)}; R2 above that of a line: {listed(named, most)}"


def massive(rows: Sequence[Row]) -> str:
    """Layers with channels of massive activations: `blocks.2.norm1 (channels: 2)`; empty where
    there are none.
    """
    return ", ".join(
        f"{row['layer']} (channels: {int(row['massive_channels'])})"
        for row in rows
        if row.get("massive_channels")
    )


def status_help() -> str:
    """Every status and what it means, for the explanation of its column."""
    return (
        "; ".join(
            f"{status.words}: {status.meaning}"
            for status in Status
            if status is not Status.CAPTURED  # a fitted table holds none
        )
        + "."
    )

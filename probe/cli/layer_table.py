"""The result of a run for people: one row per layer, then what to know about them in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from probe.cli.tables import Column, Grid, Row
from probe.values import number, quality, share

STYLES = {"curved": "bold", "step": "bold", "not_finite": "red", "not_called": "dim", "constant": "dim", "too_few": "dim"}
SHARED = 10  # rank of a column that is the same in all rows
SHAPED = ("curved", "step")


def interval(row: Row) -> str:
    """`0.0691 [0.0672, 0.0709]`; without the brackets where there is no interval."""
    if row.get("alpha") is None:
        return "-"
    low, high = row.get("alpha_low"), row.get("alpha_high")
    bounds = f" [{number(low)}, {number(high)}]" if low is not None and high is not None else ""
    return number(row["alpha"]) + bounds


def best(row: Row) -> str:
    """The first of the tied families, and how many more: `tanh +2`."""
    names = [name for name in str(row.get("best_family") or "").split("|") if name]
    return "-" if not names else names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}"


def slopes(row: Row) -> str:
    """The fan of lines of an affine layer: its smallest and its largest slope over the channels."""
    if row.get("slope_min") is None:
        return "-"
    return f"{number(row['slope_min'])} .. {number(row['slope_max'])}"


def central_slope(row: Row) -> str:
    value = row.get("slope")
    return number(row.get("slope_median") if value is None else value)


def shown_r2(row: Row) -> float | None:
    """R2 of what stands in the row: of the tanh where there is one, else of the line."""
    return row.get("r2" if row["status"] in SHAPED else "linear_r2")


def layer_columns(rows: Sequence[Row]) -> list[Column]:
    """The columns of the table for these rows.

    alpha only where a layer has one, the fan of slopes only where a layer is affine, and no curves where all layers are.
    """

    def has(name: str) -> bool:
        return any(row.get(name) is not None for row in rows)

    def same(name: str) -> bool:
        return len({row[name] for row in rows}) == 1

    curves = any(row["status"] != "affine" for row in rows)
    line = "R2 line" if curves else "R2 one line"
    columns = {
        Column("layer", lambda row: str(row["layer"]), left=True): True,
        # what all layers share is said below the table as well, so it goes first
        Column("kind", lambda row: str(row["kind"]), rank=SHARED + 1 if same("kind") else 7, left=True): True,
        Column("C", lambda row: str(row["channels"]), rank=SHARED if same("channels") else 6): True,
        Column("status", lambda row: str(row["status"]), left=True): True,
        Column("alpha [95 %]", interval, rank=1, left=True): has("alpha"),
        Column("slope", central_slope): True,
        Column("slopes", slopes, rank=1): has("slope_min"),
        Column("R2", lambda row: quality(shown_r2(row))): curves and has("r2"),
        Column(line, lambda row: quality(row.get("linear_r2")), rank=2): has("linear_r2"),
        Column("ceiling", lambda row: quality(row.get("r2_ceiling")), rank=3): has("r2_ceiling"),
        Column("best", best, rank=9, left=True): curves,
        Column("1/std", lambda row: number(row.get("inverse_std")), rank=4): True,
        Column("beyond %", lambda row: share(row.get("beyond_linear")), rank=8): has("beyond_linear"),
        Column("max |x|", lambda row: number(row.get("max_abs_input")), rank=5): True,
    }
    return [column for column, wanted in columns.items() if wanted]


def counts(rows: Sequence[Row]) -> str:
    """`17 layers (17 layer_norm of 128 channels): 12 linear, 5 curved`, the most frequent first."""
    found = Counter(str(row["status"]) for row in rows)
    listed = ", ".join(f"{n} {status}" for status, n in found.most_common())
    return f"{len(rows)} layer{'s' if len(rows) != 1 else ''} ({kinds(rows)}): {listed}" if rows else "no layers"


def gain(row: Row) -> float:
    r2, line = row.get("r2"), row.get("linear_r2")
    return r2 - line if r2 is not None and line is not None else 0.0


def where_s(rows: Sequence[Row], most: int = 6) -> str:
    """Which layers are S-shaped, the most bent first with its gain over a line."""
    shaped = sorted((row for row in rows if row["status"] in SHAPED), key=gain, reverse=True)
    if not shaped:
        affine = bool(rows) and all(row["status"] == "affine" for row in rows)
        why = "each channel is exactly a straight line" if affine else "no curve beats a straight line"
        return f"S-shaped: none ({why})"
    names = ", ".join(f"{row['layer']} {gain(row):+.2g}" for row in shaped[:most])
    more = f" and {len(shaped) - most} more" if len(shaped) > most else ""
    return f"S-shaped: {len(shaped)} of {len(rows)}; R2 above that of a line: {names}{more}"


def notes(rows: Sequence[Row]) -> list[str]:
    """Counts, where the S is, and what asks for attention."""
    lines = [counts(rows), where_s(rows)]
    massive = [f"{row['layer']} (channels: {int(row['massive_channels'])})" for row in rows if row.get("massive_channels")]
    if massive:
        lines.append(f"massive activations: {', '.join(massive)}")
    return lines


def kinds(rows: Sequence[Row]) -> str:
    """`layer_norm of 128 channels`: what all the layers have in common, said once."""
    found = Counter(str(row["kind"]) for row in rows)
    channels = sorted({int(row["channels"]) for row in rows})
    span = f"{channels[0]}" if len(channels) == 1 else f"{channels[0]} to {channels[-1]}" if channels else ""
    return f"{', '.join(f'{n} {kind}' for kind, n in found.most_common())} of {span} channels"


def styles(rows: Sequence[Row]) -> list[str]:
    return [STYLES.get(str(row["status"]), "") for row in rows]


def left_out(grid: Grid) -> list[str]:
    """Which columns the terminal had no room for, except those that the counts below the table say."""
    names = [column.header for column in grid.dropped if column.rank < SHARED]
    return [f"no room for: {', '.join(names)} (a wider terminal, alpha.csv or --json shows them)"] if names else []

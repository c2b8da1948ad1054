"""What the alpha table of a run says, in words and short cells: the definitions that the terminal
and the report share.

Rows are those of alpha.csv as plain values (`probe.formatting.records`), in execution order;
`manifest` is that of the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from probe.formatting import number

Row = Mapping[str, Any]

SHAPED = ("curved", "step")  # statuses of S-shaped layers


def shaped(rows: Sequence[Row]) -> list[Row]:
    """The S-shaped layers in execution order."""
    return [row for row in rows if row["status"] in SHAPED]


def gain(row: Row) -> float:
    """R2 of the tanh less that of the line."""
    r2, line = row.get("r2"), row.get("linear_r2")
    return r2 - line if r2 is not None and line is not None else 0.0


def shown_r2(row: Row) -> float | None:
    """R2 of what stands in the row: of the tanh where there is one, else of the line."""
    return row.get("r2" if row["status"] in SHAPED else "linear_r2")


def interval(row: Row) -> str:
    """`0.0691 [0.0672, 0.0709]`; without the brackets where there is no interval."""
    if row.get("alpha") is None:
        return "-"
    low, high = row.get("alpha_low"), row.get("alpha_high")
    bounds = f" [{number(low)}, {number(high)}]" if low is not None and high is not None else ""
    return number(row["alpha"]) + bounds


def best_families(row: Row) -> list[str]:
    """The families tied for the best fit."""
    return [name for name in str(row.get("best_family") or "").split("|") if name]


def best(row: Row) -> str:
    """The first of the tied families, and how many more: `tanh +2`."""
    names = best_families(row)
    return "-" if not names else names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}"


def slopes(row: Row) -> str:
    """The fan of lines of an affine layer: its smallest and its largest slope over the channels."""
    if row.get("slope_min") is None:
        return "-"
    return f"{number(row['slope_min'])} .. {number(row['slope_max'])}"


def central_slope(row: Row) -> float | None:
    """Slope at the centre; of an affine layer the median over its channels."""
    value = row.get("slope")
    return row.get("slope_median") if value is None else value


def counts(rows: Sequence[Row]) -> str:
    """`17 layers (17 layer_norm of 128 channels): 12 linear, 5 curved`, the most frequent first."""
    found = Counter(str(row["status"]) for row in rows)
    listed = ", ".join(f"{n} {status}" for status, n in found.most_common())
    return (
        f"{len(rows)} layer{'s' if len(rows) != 1 else ''} ({kinds(rows)}): {listed}"
        if rows
        else "no layers"
    )


def kinds(rows: Sequence[Row]) -> str:
    """`17 layer_norm of 128 channels`: what all the layers have in common, said once."""
    found = Counter(str(row["kind"]) for row in rows)
    channels = sorted({int(row["channels"]) for row in rows})
    span = (
        f"{channels[0]}"
        if len(channels) == 1
        else f"{channels[0]} to {channels[-1]}"
        if channels
        else ""
    )
    return f"{', '.join(f'{n} {kind}' for kind, n in found.most_common())} of {span} channels"


def why_none(rows: Sequence[Row]) -> str:
    """Why no layer is S-shaped."""
    affine = bool(rows) and all(row["status"] == "affine" for row in rows)
    return "each channel is exactly a straight line" if affine else "no curve beats a straight line"


def massive(rows: Sequence[Row]) -> str:
    """Layers with channels of massive activations: `blocks.2.norm1 (channels: 2)`; empty where
    there are none.
    """
    return ", ".join(
        f"{row['layer']} (channels: {int(row['massive_channels'])})"
        for row in rows
        if row.get("massive_channels")
    )


def skipped(manifest: Mapping[str, Any]) -> list[Any]:
    """The images that could not be read: `image` and `reason` of each."""
    return list((manifest.get("data") or {}).get("skipped") or [])


def functional(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Normalizations called as functions, which no hook sees: calls in one forward pass by the
    module that makes them.
    """
    return dict(manifest.get("not_captured") or {})


def warnings_of(manifest: Mapping[str, Any]) -> list[str]:
    """What must not be overlooked, one line each; the manifest's own `warnings` among it."""
    model = manifest.get("model")
    told = [str(line) for line in manifest.get("warnings") or []]
    if isinstance(model, Mapping) and model.get("weights") == "random":
        return [
            "RANDOM WEIGHTS: the model was not trained; these numbers say nothing about a trained "
            "one",
            *told,
        ]
    return told


def missed(manifest: Mapping[str, Any], most: int) -> list[str]:
    """Skipped images and norms that were not captured, at most `most` of each by name."""
    lines = []
    if lost := skipped(manifest):
        more = f" and {len(lost) - most} more" if len(lost) > most else ""
        words = [f"{item['image']} ({item['reason']})" for item in lost[:most]]
        lines.append(f"skipped images: {len(lost)}: {', '.join(words)}{more}")
    if calls := functional(manifest):
        words = [
            f"{name or 'the model itself'} ({n} call{'s' if n != 1 else ''})"
            for name, n in list(calls.items())[:most]
        ]
        more = f" and {len(calls) - most} more modules" if len(calls) > most else ""
        lines.append(
            f"functional norms (F.layer_norm, ...), not captured: {', '.join(words)}{more}"
        )
    return lines

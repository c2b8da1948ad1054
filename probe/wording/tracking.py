"""What the table of a tracking says: when each layer becomes S-shaped and stays so, and how alpha,
gain, extremes and attention change.

Rows are those of track.csv as plain values (`probe.formatting.records`), checkpoints in their
order, layers in execution order; `unit` is what the numbers of the checkpoints count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from probe.formatting import number, percent
from probe.records import Status
from probe.wording.attention import mean
from probe.wording.layers import gain, shaped
from probe.wording.phrases import Finding, Row, are, listed, plural, rows_with, values_of

NAMED = 8  # layers named in a sentence; the table has them all


def layer_changes(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One row per layer in execution order: its first and its last checkpoint side by side, and
    since when it is curved.

    since: the earliest checkpoint from which on it is curved at every later one, too; None where
    it is not curved at the last. before: its status at the checkpoint before that; None where
    there is none. undecided: at how many checkpoints it is undetermined.
    """
    of_layer: dict[str, list[Row]] = {}
    for row in sorted(rows_with(rows, "layer"), key=lambda row: row["epoch"]):
        of_layer.setdefault(str(row["layer"]), []).append(row)
    return [
        _change(layer, seen)
        for layer, seen in sorted(of_layer.items(), key=lambda item: item[1][-1]["depth"])
    ]


def _change(layer: str, seen: Sequence[Row]) -> dict[str, Any]:
    """One layer over its checkpoints, in their order."""
    curved = [row["status"] == Status.CURVED for row in seen]
    start = len(seen) - next((n for n, each in enumerate(reversed(curved)) if not each), len(seen))
    first, last = seen[0], seen[-1]
    ends = {
        f"{when}_{name}": row.get(name)
        for when, row in (("first", first), ("last", last))
        for name in ("status", "alpha", "gain", "beyond_linear", "max_abs_input")
    }
    return {
        "layer": layer,
        "depth": last["depth"],
        "kind": last.get("kind"),
        "status": last["status"],
        "checkpoints": len(seen),
        "curved": sum(curved),
        "undecided": sum(row["status"] == Status.UNDETERMINED for row in seen),
        "since": seen[start]["epoch"] if start < len(seen) else None,
        "from_the_first": start == 0,
        "before": seen[start - 1]["status"] if 0 < start < len(seen) else None,
        "by_construction": last.get("own_alpha") is not None,
        "before_epoch": seen[start - 1]["epoch"] if 0 < start < len(seen) else None,
        **ends,
    }


def tracking_findings(
    rows: Sequence[Row], heads: Sequence[Row] = (), unit: str = "epoch"
) -> list[Finding]:
    """The sentences by topic; a topic without any is left out."""
    changes = layer_changes(rows)
    topics = {
        "Checkpoints": _checkpoints(rows, unit),
        "When": _when(changes, unit),
        "Not curved": _not_curved(changes),
        "Alpha": _alpha(changes),
        "Gain": _gain(rows, unit),
        "Extremes": _extremes(rows, unit),
        "Attention": _attention(heads, unit),
    }
    texts = {topic: " ".join(said).replace("R2", "R\u00b2") for topic, said in topics.items()}
    return [Finding(topic, text) for topic, text in texts.items() if text]


def _checkpoints(rows: Sequence[Row], unit: str) -> Iterator[str]:
    seen = rows_with(rows, "layer")
    names = dict.fromkeys(str(row["checkpoint"]) for row in seen)
    epochs = [row["epoch"] for row in seen]
    if not epochs:
        return
    span = f"{unit} {min(epochs)} to {max(epochs)}" if len(names) > 1 else f"{unit} {epochs[0]}"
    images, sources = seen[0].get("images"), seen[0].get("sources")
    of = f" of {plural(sources, 'photograph')}" if sources and sources != images else ""
    on = f", each on the same {plural(images, 'image')}{of}" if images else ""
    yield f"{plural(len(names), 'checkpoint')}, {span}{on}."
    failed = [row for row in rows if row.get("layer") is None]
    if failed:
        named = [f"{row['checkpoint']} ({row['reason']})" for row in failed]
        yield f"Could not be opened: {listed(named, 3)}."


def _when(changes: Sequence[Row], unit: str) -> Iterator[str]:
    """Since when the layers are curved that are so at the last checkpoint."""
    bent = rows_with(changes, "since")
    if not changes:
        return
    layers = plural(len(changes), "layer")
    if not bent:
        yield f"None of {layers} is shown to be S-shaped at the last checkpoint."
        return
    yield f"{len(bent)} of {layers} {are(len(bent))} shown to be S-shaped at the last checkpoint."
    if own := sum(row["by_construction"] for row in bent):
        which = plural(own, "DyT or Derf layer")
        yield f"{which} among them {are(own)} so by construction."
    if always := [str(row["layer"]) for row in bent if row["from_the_first"]]:
        which = "all of them" if len(always) == len(changes) else _some(always)
        yield f"From the first checkpoint ({_first(bent, unit)}) on: {which}."
    later = sorted((row for row in bent if not row["from_the_first"]), key=lambda r: r["since"])
    for since in dict.fromkeys(row["since"] for row in later):
        named = [_with_before(row, unit) for row in later if row["since"] == since]
        yield f"From {unit} {since} on: {_some(named)}."


def _first(bent: Sequence[Row], unit: str) -> str:
    return f"{unit} {next(row['since'] for row in bent if row['from_the_first'])}"


def _with_before(row: Row, unit: str) -> str:
    """`blocks.0.norm1 (linear at epoch 2)`: what it was shown to be just before, or that this was
    not decided.
    """
    before = str(row["before"])
    said = "not decided" if before == Status.UNDETERMINED else before.replace("_", " ")
    return f"{row['layer']} ({said} at {unit} {row['before_epoch']})"


def _some(names: Sequence[str]) -> str:
    return listed(names, NAMED)


def _not_curved(changes: Sequence[Row]) -> Iterator[str]:
    """What the others are at the last checkpoint, and those that were curved once."""
    others = [row for row in changes if row["since"] is None]
    if not others:
        return
    counted = Counter(str(row["last_status"]) for row in others).most_common()
    words = [f"{count} {status.replace('_', ' ')}" for status, count in counted]
    yield f"Of the others at the last checkpoint: {', '.join(words)}."
    if once := [row for row in others if row["curved"]]:
        named = [f"{row['layer']} ({row['curved']} of {row['checkpoints']})" for row in once]
        yield f"Curved at earlier checkpoints, but not at the last: {_some(named)}."
    if open_ones := [row for row in others if row["last_status"] == Status.UNDETERMINED]:
        named = [str(row["layer"]) for row in open_ones]
        yield f"Not decided by so few images: {_some(named)}."


def _alpha(changes: Sequence[Row]) -> Iterator[str]:
    """How far alpha moved between the first and the last checkpoint, where both have one."""
    both = [
        row
        for row in rows_with(rows_with(changes, "first_alpha"), "last_alpha")
        if row["first_alpha"] > 0 and row["last_alpha"] > 0
    ]
    if not both or both[0]["checkpoints"] < 2:
        return
    ratios = [(row["last_alpha"] / row["first_alpha"], row) for row in both]
    factor, most = max(ratios, key=lambda item: max(item[0], 1 / item[0]))
    yield (
        "From the first to the last checkpoint the fitted \u03b1 is multiplied by "
        f"{number(median(ratio for ratio, _ in ratios), 2)} (median of {plural(len(both), 'layer')}"
        f"); it moves most in {most['layer']}, from {number(most['first_alpha'])} to "
        f"{number(most['last_alpha'])} (times {number(factor, 2)})."
    )
    unsure = sum(row["first_status"] != Status.CURVED for row in both)
    if unsure:
        yield f"In {unsure} of them the first curve is not established."


def _gain(rows: Sequence[Row], unit: str) -> Iterator[str]:
    """The strongest bend of all checkpoints."""
    bent = shaped(rows_with(rows, "layer"))
    if not bent:
        return
    most = max(bent, key=gain)
    yield (
        f"The bend is strongest in {most['layer']} at {unit} {most['epoch']}: a tanh explains "
        f"{number(gain(most), 2)} of R2 more than a line."
    )


def _extremes(rows: Sequence[Row], unit: str) -> Iterator[str]:
    """The share of elements beyond the line of S-shaped layers at the first and last checkpoint,
    and the largest input.
    """
    shares = {
        epoch: values_of(shaped(at), "beyond_linear") for epoch, at in _by_epoch(rows).items()
    }
    told = {epoch: median(values) for epoch, values in shares.items() if values}
    if len(told) > 1:
        (first, low), *_, (last, high) = told.items()
        yield (
            f"The share of elements beyond the linear part of the curve goes from {percent(low)} % "
            f"at {unit} {first} to {percent(high)} % at {unit} {last} (median of the layers that "
            "are S-shaped there)."
        )
    if seen := rows_with(rows_with(rows, "layer"), "max_abs_input"):
        top = max(seen, key=lambda row: row["max_abs_input"])
        yield (
            f"The largest input of all is {number(top['max_abs_input'])} by amount, in "
            f"{top['layer']} at {unit} {top['epoch']}."
        )


def _by_epoch(rows: Sequence[Row]) -> Mapping[Any, list[Row]]:
    grouped: dict[Any, list[Row]] = {}
    for row in rows_with(rows, "layer"):
        grouped.setdefault(row["epoch"], []).append(row)
    return grouped


def _attention(heads: Sequence[Row], unit: str) -> Iterator[str]:
    """The mean distance over all heads, first and last."""
    by_epoch = _by_epoch(heads)
    if len(by_epoch) < 2:
        return
    pixels = bool(values_of(heads, "distance_px"))
    column, word = ("distance_px", "px") if pixels else ("distance_patches", "patches")
    (first, early), *_, (last, late) = by_epoch.items()
    before, after = mean(early, column), mean(late, column)
    if before is None or after is None:
        return
    yield (
        f"The mean attention distance of all {len(late)} heads goes from {number(before)} {word} "
        f"at {unit} {first} to {number(after)} {word} at {unit} {last}."
    )
    if levels := sorted(set(values_of(late, "uniform_px"))):
        shown = " and ".join(number(level) for level in levels[:3])
        yield f"Attention that looks everywhere alike has {shown} px."

"""What the tables of a training say, in sentences; every number in them stands in the tables.

`epochs` are rows of epochs.csv, `norms` of norms.csv, as plain values
(`probe.formatting.records`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from probe.formatting import number, thousands
from probe.wording.phrases import Finding, Row, plural, rows_with, values_of


def training_findings(
    epochs: Sequence[Row], norms: Sequence[Row] = (), record: Mapping[str, Any] | None = None
) -> list[Finding]:
    """The sentences by topic; a topic without any is left out. `record`: training.json."""
    topics = {
        "Accuracy": _accuracy(epochs, record or {}),
        "Loss": _loss(epochs),
        "Time": _time(epochs),
        "Alpha": _alpha(norms),
        "Alpha and 1/std": _against(norms),
    }
    texts = {topic: " ".join(said) for topic, said in topics.items()}
    return [Finding(topic, text) for topic, text in texts.items() if text]


def _accuracy(epochs: Sequence[Row], record: Mapping[str, Any]) -> Iterator[str]:
    measured = rows_with(epochs, "top1")
    if not measured:
        return
    last, best = measured[-1], max(measured, key=lambda row: row["top1"])
    top5 = "" if last.get("top5") is None else f", top-5 {last['top5']:.2f} %"
    yield f"Top-1 after epoch {last['epoch']} is {last['top1']:.2f} %{top5}."
    if best["top1"] > last["top1"]:
        yield f"The highest was {best['top1']:.2f} %, after epoch {best['epoch']}."
    seed = record.get("seed")
    yield f"One training{'' if seed is None else f', seed {seed}'}: its spread is not known."


def _loss(epochs: Sequence[Row]) -> Iterator[str]:
    trained, measured = rows_with(epochs, "train_loss"), rows_with(epochs, "val_loss")
    if trained:
        first, last = trained[0], trained[-1]
        yield (
            f"The training loss goes from {number(first['train_loss'])} in epoch {first['epoch']} "
            f"to {number(last['train_loss'])} in epoch {last['epoch']}."
        )
    if len(measured) > 1:
        low, last = min(measured, key=lambda row: row["val_loss"]), measured[-1]
        where = f"after epoch {low['epoch']}"
        if low["epoch"] == last["epoch"]:
            yield f"The validation loss is smallest at the end, {number(low['val_loss'])}."
        else:
            yield (
                f"The validation loss was smallest {where} ({number(low['val_loss'])}) and is "
                f"{number(last['val_loss'])} at the end."
            )


def _time(epochs: Sequence[Row]) -> Iterator[str]:
    seconds = values_of(epochs, "seconds")
    if not seconds:
        return
    speeds = values_of(epochs, "images_per_second")
    rate = f", {thousands(median(speeds))} images a second" if speeds else ""
    yield (
        f"An epoch took {number(median(seconds))} s (median{rate}); {plural(len(seconds), 'epoch')}"
        f" {number(sum(seconds) / 60)} min, evaluation not counted."
    )


def _by_layer(norms: Sequence[Row], quantity: str) -> dict[str, list[Row]]:
    """The rows of a quantity of each layer, by epoch."""
    found: dict[str, list[Row]] = {}
    rows = [row for row in norms if row["quantity"] == quantity and row["value"] is not None]
    for row in sorted(rows, key=lambda row: (row["depth"], row["epoch"])):
        found.setdefault(str(row["layer"]), []).append(row)
    return found


def _alpha(norms: Sequence[Row]) -> Iterator[str]:
    """Where the alphas of the layers themselves began, and where they ended."""
    layers = _by_layer(norms, "alpha")
    if not layers:
        return
    first = [rows[0]["value"] for rows in layers.values()]
    last = {name: rows[-1]["value"] for name, rows in layers.items()}
    start = number(first[0]) if len(set(first)) == 1 else f"{number(min(first))} to "
    start += "" if len(set(first)) == 1 else number(max(first))
    low, high = (pick(last, key=lambda name: last[name]) for pick in (min, max))
    yield (
        f"The \u03b1 of {plural(len(layers), 'layer')} began at {start} and ended between "
        f"{number(last[low])} ({low}) and {number(last[high])} ({high})."
    )
    moved = {name: abs(last[name] - rows[0]["value"]) for name, rows in layers.items()}
    most = max(moved, key=lambda name: moved[name])
    yield (
        f"It moved most in {most}, from {number(layers[most][0]['value'])} to {number(last[most])}."
    )


def _against(norms: Sequence[Row]) -> Iterator[str]:
    """Alpha as a multiple of 1/std of the layer's input, at the beginning and at the end."""
    alphas, inverse = _by_layer(norms, "alpha"), _by_layer(norms, "inverse_std")
    both = [name for name in alphas if name in inverse]
    if not both:
        return
    ratios = [
        [
            abs(alphas[name][end]["value"]) / inverse[name][end]["value"]
            for name in both
            if inverse[name][end]["value"]
        ]
        for end in (0, -1)
    ]
    if not all(ratios):
        return
    before, after = (number(median(values), 2) for values in ratios)
    low, high = (number(pick(ratios[1]), 2) for pick in (min, max))
    yield (
        f"The median of \u03b1 times the standard deviation of the layer's input went from "
        f"{before} to {after}; at the end the layers lie between {low} and {high}, where 1 would "
        "be \u03b1 = 1/std."
    )

"""What a comparison of norms says, in sentences; every number in them stands in its tables.

`rows` are those of comparison.csv as plain values (`probe.formatting.records`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from probe.formatting import number
from probe.wording.phrases import Finding, Row, listed, plural, rows_with

NAMED = 6


def comparison_findings(rows: Sequence[Row]) -> list[Finding]:
    """The sentences by topic; a topic without any is left out."""
    topics = {
        "Accuracy": _accuracy(rows),
        "Against the reference": _against(rows),
        "Cost": _cost(rows),
        "Attention": _attention(rows),
        "Failed": _failed(rows),
        "How far this goes": _limits(rows),
    }
    texts = {topic: " ".join(said) for topic, said in topics.items()}
    return [Finding(topic, text) for topic, text in texts.items() if text]


def mean_of(row: Row) -> str:
    """`45.20 ± 0.51 %`; without a spread where there is one seed."""
    spread = f" \u00b1 {row['top1_std']:.2f}" if row.get("top1_std") is not None else ""
    return f"{row['top1_mean']:.2f}{spread} %"


def _accuracy(rows: Sequence[Row]) -> Iterator[str]:
    ranked = sorted(rows_with(rows, "top1_mean"), key=lambda row: -row["top1_mean"])
    if not ranked:
        return
    first, last = ranked[0], ranked[-1]
    yield (
        f"Highest mean top-1 after the last epoch: {first['norm']}, {mean_of(first)} (n = "
        f"{first['n']})."
    )
    if last is not first:
        yield f"Lowest: {last['norm']}, {mean_of(last)} (n = {last['n']})."


def _against(rows: Sequence[Row]) -> Iterator[str]:
    """Which norms the paired intervals tell from the reference."""
    compared = rows_with(rows, "difference")
    if not compared:
        return
    reference = compared[0]["reference"]
    sure = rows_with(compared, "difference_low")
    above = [_shift(row) for row in sure if row["difference_low"] > 0]
    below = [_shift(row) for row in sure if row["difference_high"] < 0]
    undecided = [
        str(row["norm"]) for row in sure if row["difference_low"] <= 0 <= row["difference_high"]
    ]
    if above:
        yield f"Above {reference}: {listed(above, NAMED)}."
    if below:
        yield f"Below {reference}: {listed(below, NAMED)}."
    if undecided:
        yield (
            f"Not told from {reference} by these seeds: {listed(undecided, NAMED)}; their 95 % "
            "intervals hold 0."
        )
    single = [str(row["norm"]) for row in compared if row.get("difference_low") is None]
    if single:
        yield f"One seed gives no interval: {listed(single, NAMED)}."


def _shift(row: Row) -> str:
    """`dyt (+1.20 points [0.40, 2.00])`."""
    return (
        f"{row['norm']} ({row['difference']:+.2f} points [{row['difference_low']:.2f}, "
        f"{row['difference_high']:.2f}])"
    )


def _cost(rows: Sequence[Row]) -> Iterator[str]:
    timed = sorted(rows_with(rows, "forward_ratio"), key=lambda row: row["forward_ratio"])
    if len(timed) < 2:
        return
    first, last = timed[0], timed[-1]
    yield (
        f"A forward pass takes from {number(first['forward_ratio'])} ({first['norm']}) to "
        f"{number(last['forward_ratio'])} ({last['norm']}) times that of {first['reference']}."
    )


def _attention(rows: Sequence[Row]) -> Iterator[str]:
    read = sorted(rows_with(rows, "attention_px_mean"), key=lambda row: row["attention_px_mean"])
    if len(read) < 2:
        return
    first, last = read[0], read[-1]
    yield (
        f"Heads look nearest with {first['norm']}, {number(first['attention_px_mean'])} px on "
        f"average, and farthest with {last['norm']}, {number(last['attention_px_mean'])} px."
    )


def _failed(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.get("failed"):
            yield (
                f"{row['norm']}: {plural(row['failed'], 'training')} did not come to "
                f"{'its' if row['failed'] == 1 else 'their'} end ({row['reason']})."
            )


def _limits(rows: Sequence[Row]) -> Iterator[str]:
    """What the numbers do not say."""
    if not rows:
        return
    yield (
        "These are differences between trainings of this network, data, length and recipe; longer "
        "trainings, other networks and other learning rates may order the norms otherwise."
    )
    several = sum(row.get("difference") is not None for row in rows)
    if several > 1:
        yield f"Each interval stands for itself: {several} were formed, none is corrected for that."

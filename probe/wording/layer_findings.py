"""What was found of the normalization layers, in a few plain sentences made from the alpha table;
every number in them stands in the table, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from probe.formatting import number, percent, r_squared
from probe.records import Status
from probe.wording.evidence import undecided_layers
from probe.wording.layers import gain, massive, shaped, tied_families, why_none
from probe.wording.phrases import Finding, Row, are, listed, plural, rows_with, values_of

NAMED = 4  # layers named in a sentence

# Statuses that sentences of their own speak of; all others are named with their meaning.
OWN_SENTENCES = (Status.CURVED, Status.LINEAR, Status.AFFINE, Status.UNDETERMINED)


def layer_findings(rows: Sequence[Row]) -> list[Finding]:
    """The sentences by topic; a topic without any is left out."""
    topics = {
        "Shape": _shape(rows),
        "Alpha": _alpha(rows_with(shaped(rows), "alpha")),
        "Best curve": _families([row for row in shaped(rows) if row.get("best_family")]),
        "Lines": _fan([row for row in rows if row["status"] == Status.AFFINE]),
        "Other layers": _others(rows),
        "Extremes": _extremes(rows),
    }
    texts = {topic: " ".join(said).replace("R2", "R\u00b2") for topic, said in topics.items()}
    return [Finding(topic, text) for topic, text in texts.items() if text]


def _shape(rows: Sequence[Row]) -> Iterator[str]:
    """How many layers bend, where that starts and ends, and where it is strongest; how many do
    not, and what is open.
    """
    if bent := shaped(rows):
        count = f"{len(bent)} of {plural(len(rows), 'layer')} {are(len(bent))} S-shaped"
        yield f"{count}; {_where(bent)}."
        most = max(bent, key=gain)
        yield (
            f"The bend is strongest in {most['layer']}: a tanh explains "
            f"{r_squared(most.get('r2'))} of the variance, a straight line "
            f"{r_squared(most.get('linear_r2'))} (gain {gain(most):.2g})."
        )
    else:
        why = why_none(rows)
        none = f"None of {plural(len(rows), 'layer')} is shown to be S-shaped"
        yield f"{none}: {why}." if why else f"{none}."
    if straight := sum(row["status"] == Status.LINEAR for row in rows):
        yield f"{plural(straight, 'layer')} {are(straight)} {Status.LINEAR.meaning}."
    if still_open := undecided_layers(rows):
        yield f"{still_open[:1].upper()}{still_open[1:]}."


def _where(bent: Sequence[Row]) -> str:
    """The first and the last of the S-shaped layers, or the only one."""
    first, last = bent[0], bent[-1]
    place = f"number {first['depth'] + 1} in execution order"
    if len(bent) == 1:
        return f"it is {first['layer']}, {place}"
    return (
        f"the first is {first['layer']} ({place}), the last {last['layer']} (number "
        f"{last['depth'] + 1})"
    )


def _alpha(bent: Sequence[Row]) -> Iterator[str]:
    """The range of alpha, beside 1/std, and how much of what can be explained the tanh does."""
    if not bent:
        return
    low, high = (pick(bent, key=lambda row: row["alpha"]) for pick in (min, max))
    if len(bent) == 1:
        yield f"The fitted \u03b1 of {low['layer']} is {number(low['alpha'])}."
    else:
        ends = (f"{number(row['alpha'])} ({row['layer']})" for row in (low, high))
        yield f"The fitted \u03b1 goes from {' to '.join(ends)}."
    ratio = [row["alpha"] * row["input_std"] for row in bent if row.get("input_std")]
    if ratio:
        yield f"Its median is {number(median(ratio), 2)} times 1/std of the layer's input."
    measured = rows_with(rows_with(bent, "r2"), "r2_ceiling")
    reach = [row["r2"] / row["r2_ceiling"] for row in measured if row["r2_ceiling"]]
    if reach:
        yield (
            f"The tanh reaches {percent(median(reach))} % of what any element-wise curve could "
            "explain (median)."
        )


def _families(bent: Sequence[Row]) -> Iterator[str]:
    """Which family has most often the highest R2 among the S-shaped layers, and where another one
    is as good.
    """
    if not bent:
        return
    of = f"of {len(bent)} S-shaped layers" if len(bent) > 1 else "of one S-shaped layer"
    yield f"Highest R2, {of}: {_ranked(Counter(str(row['best_family']) for row in bent))}."
    if rivals := Counter(name for row in bent for name in tied_families(row)):
        yield f"Not told from the best one: {_ranked(rivals)}."
    else:
        yield "No other family is tied with it in any of them."


def _ranked(families: Counter[str]) -> str:
    return ", ".join(f"{name} {times}" for name, times in families.most_common(NAMED))


def _fan(fans: Sequence[Row]) -> Iterator[str]:
    """Layers that are affine per channel: slopes over channels, never a curve over all of them."""
    if not fans:
        return
    yield (
        f"{plural(len(fans), 'layer')} {are(len(fans))} affine per channel by construction: each "
        "is a fan of lines, one per channel, and has no \u03b1."
    )
    if medians := values_of(fans, "slope_median"):
        low, middle, high = (number(pick(medians)) for pick in (min, median, max))
        yield (
            f"The median slope of a layer goes from {low} to {high} (median of the layers "
            f"{middle})."
        )
    if variation := values_of(fans, "slope_cv"):
        yield (
            f"Within a layer the slopes vary by {percent(median(variation))} % of their mean "
            f"(median of the layers; at most {percent(max(variation))} %)."
        )


def _others(rows: Sequence[Row]) -> Iterator[str]:
    """The layers of each other status by name, with what it means."""
    for status in Status:
        names = [str(row["layer"]) for row in rows if row["status"] == status]
        if names and status not in OWN_SENTENCES:
            yield f"{status.words.capitalize()} ({status.meaning}): {listed(names, NAMED)}."


def _extremes(rows: Sequence[Row]) -> Iterator[str]:
    """The largest input, how many elements leave the line, and massive activations."""
    seen = rows_with(rows, "max_abs_input")
    bent = rows_with(shaped(rows), "beyond_linear")
    if seen:
        top = max(seen, key=lambda row: row["max_abs_input"])
        yield f"The largest input is {number(top['max_abs_input'])} by amount, in {top['layer']}."
    if bent:
        top = max(bent, key=lambda row: row["beyond_linear"])
        yield (
            f"{percent(median(values_of(bent, 'beyond_linear')))} % of the elements lie beyond the "
            f"linear part of the curve (median of S-shaped layers; most in {top['layer']}, "
            f"{percent(top['beyond_linear'])} %)."
        )
    if named := massive(rows):
        yield f"Massive activations: {named}."
    elif seen:
        yield (
            "No channel carries massive activations (over 100, and over 1000 times the median of "
            "its layer)."
        )

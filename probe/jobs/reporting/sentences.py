"""What was found in a run, in a few plain sentences made from its tables; every number in them
stands in a table, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from probe.formatting import number, quality, share
from probe.html import Finding
from probe.wording.attention import count, known, mean, per_layer
from probe.wording.layers import Row, best_families, gain, massive, shaped, why_none

NAMED = 4  # layers named in a sentence


def layer_findings(rows: Sequence[Row]) -> list[Finding]:
    """Of the normalization layers."""
    said = [
        ("Shape", _shape(rows)),
        ("Alpha", _alpha(rows)),
        ("Best curve", _families(rows)),
        ("Lines", _fan(rows)),
        ("Other layers", " ".join(_others(rows))),
        ("Extremes", " ".join(_extremes(rows))),
    ]
    return [Finding(topic, text) for topic, text in said if text]


def _shape(rows: Sequence[Row]) -> str:
    """How many layers bend, where that starts and ends, and where it is strongest."""
    bent = shaped(rows)
    if not bent:
        return f"None of the {_layers(len(rows))} is S-shaped: {why_none(rows)}."
    first, last, most = bent[0], bent[-1], max(bent, key=gain)
    where = f"it is {first['layer']}, number {first['depth'] + 1} in execution order"
    if len(bent) > 1:
        where = (
            f"the first is {first['layer']} (number {first['depth'] + 1} in execution order), the "
            f"last {last['layer']} "
        )
        where += f"(number {last['depth'] + 1})"
    bend = (
        f"The bend is strongest in {most['layer']}: a tanh explains {quality(most.get('r2'))} of "
        "the variance, "
        f"a straight line {quality(most.get('linear_r2'))} (gain {gain(most):.2g})."
    )
    straight = sum(row["status"] == "linear" for row in rows)
    rest = (
        f" In {straight} layer{_s(straight)} no curve surely beats a straight line."
        if straight
        else ""
    )
    return f"{len(bent)} of {_layers(len(rows))} {_is(len(bent))} S-shaped; {where}. {bend}{rest}"


def _alpha(rows: Sequence[Row]) -> str:
    bent = [row for row in rows if row.get("alpha") is not None]
    if not bent:
        return ""
    low, high = (pick(bent, key=lambda row: row["alpha"]) for pick in (min, max))
    reach = [
        row["r2"] / row["r2_ceiling"]
        for row in bent
        if row.get("r2") is not None and row.get("r2_ceiling")
    ]
    spread = (
        f"The fitted \u03b1 goes from {number(low['alpha'])} ({low['layer']}) to "
        f"{number(high['alpha'])} ({high['layer']})."
    )
    if len(bent) == 1:
        spread = f"The fitted \u03b1 of {low['layer']} is {number(low['alpha'])}."
    ratio = [row["alpha"] * row["input_std"] for row in bent if row.get("input_std")]
    beside = (
        f" Its median is {number(median(ratio), 2)} times 1/std of the layer's input."
        if ratio
        else ""
    )
    share_of = (
        f" The tanh reaches {number(100 * median(reach))} % of what any element-wise curve could "
        "explain (median)."
        if reach
        else ""
    )
    return f"{spread}{beside}{share_of}"


def _families(rows: Sequence[Row]) -> str:
    """Which family is most often the best or tied with it, among the S-shaped layers."""
    bent = [row for row in shaped(rows) if best_families(row)]
    if not bent:
        return ""
    tied = Counter(name for row in bent for name in best_families(row))
    alone = Counter(best_families(row)[0] for row in bent if len(best_families(row)) == 1)
    of = f"of {len(bent)}" if len(bent) > 1 else "of one"
    ranked = ", ".join(f"{name} {times}" for name, times in tied.most_common(NAMED))
    text = f"Best or tied with the best, {of} S-shaped layer{_s(len(bent))}: {ranked}."
    if alone:
        text += (
            " Best alone: "
            f"{', '.join(f'{name} {times}' for name, times in alone.most_common(NAMED))}."
        )
    else:
        text += " No layer has a single best family."
    return text


def _fan(rows: Sequence[Row]) -> str:
    """Layers that are affine per channel: slopes over channels, never a curve over all of them."""
    fans = [row for row in rows if row["status"] == "affine"]
    if not fans:
        return ""
    medians = [row["slope_median"] for row in fans if row.get("slope_median") is not None]
    text = (
        f"{_layers(len(fans))} {_is(len(fans))} affine per channel by construction: each is a fan "
        "of lines, one per channel, "
    )
    text += "and has no \u03b1."
    if medians:
        low, high = number(min(medians)), number(max(medians))
        text += (
            f" The median slope of a layer goes from {low} to {high} (median of the layers "
            f"{number(median(medians))})."
        )
    cv = [row["slope_cv"] for row in fans if row.get("slope_cv") is not None]
    if cv:
        text += (
            f" Within a layer the slopes vary by {share(median(cv))} % of their mean (median of "
            "the layers; "
        )
        text += f"at most {share(max(cv))} %)."
    return text


MEANING = {
    "superlinear": "they bend, but not as a saturating curve does",
    "step": "their bend is sharper than the search for alpha reaches, so alpha is a bound",
    "constant": "their input does not vary",
    "too_few": "too few elements to fit",
    "not_finite": "infinities or NaN went through",
    "not_called": "the model did not use them on these images",
}


def _others(rows: Sequence[Row]) -> Iterator[str]:
    for status, meaning in MEANING.items():
        found = [str(row["layer"]) for row in rows if row["status"] == status]
        if found:
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            yield (
                f"{status.replace('_', ' ').capitalize()} ({meaning}): "
                f"{', '.join(found[:NAMED])}{more}."
            )


def _extremes(rows: Sequence[Row]) -> Iterator[str]:
    seen = [row for row in rows if row.get("max_abs_input") is not None]
    if seen:
        top = max(seen, key=lambda row: row["max_abs_input"])
        yield f"The largest input is {number(top['max_abs_input'])} by amount, in {top['layer']}."
    beyond = [row for row in rows if row.get("beyond_linear") is not None]
    if beyond:
        top = max(beyond, key=lambda row: row["beyond_linear"])
        middle = median(row["beyond_linear"] for row in beyond)
        yield (
            f"{share(middle)} % of the elements lie beyond the linear part of the curve (median "
            "of S-shaped layers; "
            f"most in {top['layer']}, {share(top['beyond_linear'])} %)."
        )
    if named := massive(rows):
        yield f"Massive activations: {named}."
    elif seen:
        yield (
            "No channel carries massive activations (over 100, and over 1000 times the median of "
            "its layer)."
        )


def attention_findings(heads: Sequence[Row], computed: bool = True) -> list[Finding]:
    """Of the attention heads; `computed`: False for a model that has none."""
    if not computed:
        return [Finding("Attention", "The model computes none.")]
    return [Finding("Attention", " ".join(_attention(heads)))] if heads else []


def _attention(heads: Sequence[Row]) -> Iterator[str]:
    yield f"{count(heads)}."
    pixels = [row for row in heads if row.get("distance_px") is not None]
    if pixels:
        near, far = (pick(pixels, key=lambda row: row["distance_px"]) for pick in (min, max))
        yield (
            f"Nearest: {_head(near)} with {number(near['distance_px'])} px; farthest: "
            f"{_head(far)} with "
            f"{number(far['distance_px'])} px (heads count from 1)."
        )
        layers = [row for row in per_layer(heads) if row["distance_px"] is not None]
        if len(layers) > 1:
            yield (
                f"The mean of a layer goes from {number(layers[0]['distance_px'])} px in the "
                "first to "
                f"{number(layers[-1]['distance_px'])} px in the last one."
            )
    mass = known(heads, "prefix_mass")
    if any(mass):
        most = max(
            (row for row in heads if row.get("prefix_mass") is not None),
            key=lambda row: row["prefix_mass"],
        )
        yield (
            f"Patches put {share(mean(heads, 'prefix_mass'))} % of their attention on class and "
            "register tokens on average, "
            f"{share(most['prefix_mass'])} % in {_head(most)}."
        )


def _head(row: Row) -> str:
    """As the figures name it: the first head is 1."""
    return f"head {row['head'] + 1} of {row['layer']}"


def _layers(count: int) -> str:
    return f"{count} layer{_s(count)}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"

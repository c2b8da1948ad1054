"""The figures of `plot` on the page, each with its title and how to read it, as PNGs with a palette
(a third of the size).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from probe.html import Figure as Shown
from probe.html import Picture
from probe.jobs.drawing.draw import KINDS
from probe.jobs.drawing.tables import FigureTables, NothingToDraw
from probe.jobs.figure_file import pixels
from probe.jobs.sharing import shared

FIGURE_COLOURS = 160
_EFFORT = 7  # of zlib: 5 % larger than its 9, in half the time


@dataclass(frozen=True)
class Words:
    """Title of a figure and how to read it."""

    title: str
    caption: str


NORMS = {
    "alpha_vs_inverse_std": Words(
        "Alpha and slope against 1/std",
        "Alpha of each curved layer with its 95 % interval, where there is one, and the slope at "
        "the centre of every layer, against one over the standard deviation of the layer's "
        "input. On the dashed line both are equal; DyT finds its learned alphas near it.",
    ),
    "families": Words(
        "Families of curves",
        "Above: share of variance explained by a line and by a tanh, under the ceiling that no "
        "element-wise curve can pass. Below: what each family misses of that ceiling, on a log "
        "axis; lower is better.",
    ),
    "lines": Words(
        "Slopes and offsets of affine layers",
        "Layers that are a line per channel, along depth: how far the lines of the channels "
        "differ. One curve over all channels would describe this mixture and not the layer.",
    ),
    "extremes": Words(
        "Extremes along depth",
        "Share of elements that leave the linear part of the curve, where a layer is curved, and "
        "the largest input beside the standard deviation. A number over a point counts channels "
        "with massive activations.",
    ),
    "tokens": Words(
        "Class and register tokens against patch tokens",
        "Four layers; each kind of token with its own fit. Where the two curves differ, one "
        "alpha for both is a compromise.",
    ),
    "by_channel": Words(
        "The same points by channel",
        "Four layers with the channels that carry the most extreme inputs in colour, over all "
        "others in grey.",
    ),
    "by_position": Words(
        "The same points by token",
        "Four layers with the elements of some tokens in colour. In LayerNorm the points of one "
        "token lie on a straight line of slope 1/sigma; the S comes from tokens of large sigma, "
        "whose flat lines own the large inputs.",
    ),
}
ATTENTION = {
    "attention_distance": Words(
        "Mean attention distance",
        "A dot per head along depth: how far, on average, its patches look. Dashed: attention "
        "that looks everywhere alike. Low dots are local heads.",
    ),
    "attention_heads": Words(
        "Sorted heads",
        "Heads of the first and the last layers, nearest first; bars are one standard deviation "
        "over images to either side.",
    ),
    "attention_mass_entropy": Words(
        "Mass on prefix tokens, and entropy",
        "Where the model has class or register tokens: the share of a patch's attention that "
        "they draw. And the entropy of that attention: high is spread out, low is sharp.",
    ),
    "attention_heatmap": Words(
        "Distance of every head",
        "Layers along, heads upwards; the brighter, the farther a head looks.",
    ),
}


def whole_figures(
    tables: FigureTables, chosen: Mapping[str, Words], prefix: str, drawn: Mapping[str, Path]
) -> Iterator[Shown]:
    """The chosen figures that the run has data for; `drawn`: files that were just drawn from the
    same tables.
    """
    kinds = [kind for kind in chosen if kind in ATTENTION or not tables.run.attention_only]
    pictures = shared(partial(_figure_picture, tables, drawn), kinds)
    for kind, png in zip(kinds, pictures, strict=True):
        if png is not None:
            yield _shown(png, f"{prefix}-{kind}", chosen[kind], tables.frame.heading)


def _figure_picture(tables: FigureTables, drawn: Mapping[str, Path], kind: str) -> bytes | None:
    """A figure as the page shows it; None where the run has no data for it."""
    try:
        image = Image.open(drawn[kind]) if kind in drawn else pixels(KINDS[kind](tables))
    except NothingToDraw:
        return None
    return with_palette(image, FIGURE_COLOURS)


def shown_figure(image: Image.Image, name: str, words: Words, heading: str) -> Shown:
    return _shown(with_palette(image, FIGURE_COLOURS), name, words, heading)


def _shown(png: bytes, name: str, words: Words, heading: str) -> Shown:
    picture = Picture(png, f"{words.title} of {heading}. {words.caption}")
    return Shown(name, words.title, words.caption, picture)


def with_palette(image: Image.Image, colours: int) -> bytes:
    """The image as PNG with at most `colours` colours and no alpha channel."""
    few = image.convert("RGB").quantize(
        colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
    buffer = io.BytesIO()
    few.save(buffer, "PNG", compress_level=_EFFORT)
    return buffer.getvalue()

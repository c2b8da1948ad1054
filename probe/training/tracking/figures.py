"""The figures of a tracking, each with its title and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from matplotlib.figure import Figure

from probe.jobs.drawing.tables import NothingToDraw, evenly, images, network
from probe.jobs.reporting.figures import Words
from probe.layer_names import Patterns, select
from probe.plots import Frame, tracking
from probe.plots.tracking_curves import PANELS, curves_by_epoch
from probe.records import Status
from probe.training.tracking.tables import Tracked, attention_table, track_table
from probe.wording.notes import is_random
from probe.wording.phrases import plural


@dataclass(frozen=True)
class TrackedTables:
    """What the figures and the page need of a tracking: its tables without the checkpoints that
    failed, and what stands over each figure.

    layers: globs of the layers that are drawn; None: all.
    """

    tracked: Sequence[Tracked]
    layers: Patterns | None = None

    @cached_property
    def all_rows(self) -> pd.DataFrame:
        """Failed checkpoints too."""
        return track_table(self.tracked)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row per checkpoint and layer."""
        rows = self.all_rows[self.all_rows["layer"].notna()]
        if self.layers is None:
            return rows
        names = [str(name) for name in rows["layer"].drop_duplicates()]
        return rows[rows["layer"].isin(select(names, self.layers, "layers of this tracking"))]

    @cached_property
    def heads(self) -> pd.DataFrame:
        return attention_table(self.tracked)

    @cached_property
    def unit(self) -> str:
        return self.tracked[0].checkpoint.unit

    @cached_property
    def frame(self) -> Frame:
        """Model, number of checkpoints and images over each figure."""
        runs = [each.run for each in self.tracked if each.run is not None]
        name = network(runs[0]).partition(", ")[0]
        warning = "random weights: nothing was learned" if is_random(runs[0].manifest) else ""
        heading = (name, plural(len(runs), "checkpoint"), images(runs[0]))
        return Frame(", ".join(part for part in heading if part), warning)

    @property
    def name(self) -> str:
        """The network."""
        return self.frame.heading.partition(", ")[0]


def _curves(tables: TrackedTables) -> Figure:
    """Six layers at equal steps of depth; those that are a fan of lines have no curve."""
    rows = tables.rows[tables.rows["status"] != Status.AFFINE]
    names = [str(name) for name in rows.sort_values("depth", kind="stable")["layer"].unique()]
    if not names:
        raise NothingToDraw("every layer is affine per channel: a fan of lines has no curve")
    return curves_by_epoch(rows, evenly(names, PANELS), frame=tables.frame, unit=tables.unit)


def _shape(tables: TrackedTables) -> Figure:
    return tracking.shape_by_epoch(tables.rows, frame=tables.frame, unit=tables.unit)


def _with(column: str, why: str, draw: Callable[..., Figure]) -> Callable[[TrackedTables], Figure]:
    """A figure of the layers that have a positive number there; `why` none has."""

    def drawn(tables: TrackedTables) -> Figure:
        curved = tables.rows[tables.rows["status"] != Status.AFFINE]
        if not (curved[column] > 0).any():
            raise NothingToDraw(why)
        return draw(curved, frame=tables.frame, unit=tables.unit)

    return drawn


def _attention(tables: TrackedTables) -> Figure:
    heads = tables.heads
    if heads.empty or not heads[tracking.distance_of(heads)[0]].notna().any():
        raise NothingToDraw("no attention was read; --attention reads it")
    return tracking.attention_by_epoch(heads, frame=tables.frame, unit=tables.unit)


KINDS: dict[str, Callable[[TrackedTables], Figure]] = {
    "shape_by_epoch": _shape,
    "curves_by_epoch": _curves,
    "gain_by_epoch": _with("gain", "no layer has a gain over a line", tracking.gain_by_epoch),
    "alpha_by_epoch": _with("alpha", "no layer has an alpha", tracking.alpha_by_epoch),
    "extremes_by_epoch": _with(
        "beyond_linear", "no element lies beyond a linear part", tracking.extremes_by_epoch
    ),
    "attention_by_epoch": _attention,
}

WORDS: Mapping[str, Words] = {
    "shape_by_epoch": Words(
        "When each layer is S-shaped",
        "The status of every layer at every checkpoint, layers downwards in execution order. A "
        "disc: a tanh is shown to be better than a line; a dash: shown to be straight; a question "
        "mark: these images decide neither.",
    ),
    "curves_by_epoch": Words(
        "The curves over the training",
        "Layers at equal steps of depth; the tanh fitted to every element at each checkpoint, from "
        "the smallest to the largest input that the layer saw there. Pale curves are not shown to "
        "be better than a line.",
    ),
    "gain_by_epoch": Words(
        "Gain over a line",
        "What a tanh explains of R\u00b2 more than a straight line, a line per layer, coloured by "
        "its place in execution order. A layer is curved above the dashed threshold, where the "
        "lower end of its interval is above half of it. Gains under 0.00001 are drawn at 0.00001.",
    ),
    "alpha_by_epoch": Words(
        "Alpha over the training",
        "The alpha of the fitted tanh; hollow and pale where the curve is not established. It is "
        "what stands in for the layer as it is then, not what a DyT layer would have learned.",
    ),
    "extremes_by_epoch": Words(
        "Extremes over the training",
        "The share of all elements where the fitted curve is less than half as steep as in its "
        "centre: what the bend is made of.",
    ),
    "attention_by_epoch": Words(
        "Attention distance over the training",
        "Mean over the heads of each attention layer of how far its patches look. Dashed: "
        "attention that looks everywhere alike.",
    ),
}


__all__ = ["KINDS", "WORDS", "TrackedTables"]

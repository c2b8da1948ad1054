"""The figures of a comparison, each with its title and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from probe.jobs.drawing.tables import FigureTables, NothingToDraw, evenly
from probe.jobs.reporting.figures import Words
from probe.plots import Frame, Side, attention_distance, compare_grid
from probe.plots import norm_comparison as plots
from probe.plots.norm_comparison_alpha import alpha_by_norm
from probe.plots.training import of_quantity
from probe.store import Run

PANELS = 3  # layers of a network in the figure of S-curves


@dataclass(frozen=True)
class ComparisonTables:
    """What the figures need. epochs: of every cell. norms, runs: of the first seed of each norm
    that came to its end.
    """

    cells: pd.DataFrame
    comparison: pd.DataFrame
    epochs: pd.DataFrame
    norms: Mapping[str, pd.DataFrame]
    runs: Mapping[str, Run]
    frame: Frame
    first: Frame  # of the figures that show the first seed alone
    batch: int

    @property
    def labels(self) -> list[str]:
        return [str(norm) for norm in self.comparison["norm"]]


def _accuracy(tables: ComparisonTables) -> Figure:
    _refuse_none(tables)
    return plots.accuracy_by_norm(tables.cells, tables.comparison, frame=tables.frame)


def _curves(tables: ComparisonTables) -> Figure:
    _refuse_none(tables)
    return plots.comparison_curves(tables.epochs, tables.labels, frame=tables.frame)


def _cost(tables: ComparisonTables) -> Figure:
    _refuse_none(tables)
    return plots.cost_against_accuracy(tables.comparison, batch=tables.batch, frame=tables.frame)


def _refuse_none(tables: ComparisonTables) -> None:
    if not np.isfinite(tables.comparison["top1_mean"]).any():
        raise NothingToDraw("no cell came to its end")


def _alpha(tables: ComparisonTables) -> Figure:
    with_alpha = {
        norm: rows for norm, rows in tables.norms.items() if not of_quantity(rows, "alpha").empty
    }
    if not with_alpha:
        raise NothingToDraw("no norm has an alpha of its own")
    return alpha_by_norm(with_alpha, frame=tables.first)


def _s_curves(tables: ComparisonTables) -> Figure:
    """The same layers of every network, at equal steps of depth."""
    sides = []
    varied = _varied(tables.runs.values())
    for norm, run in tables.runs.items():
        of_run = FigureTables(run)
        layers = evenly([name for name in of_run.drawn if name in varied], PANELS)
        if layers:
            sides.append(Side(norm, layers, of_run.thin(layers), of_run.fits, of_run.fan))
    if not sides:
        raise NothingToDraw("no final network was captured")
    return compare_grid(sides, frame=tables.first)


def _varied(runs: Iterable[Run]) -> set[str]:
    """The layers that are not of the same kind in all networks; all where none is compared."""
    kinds: dict[str, set[str]] = {}
    for run in runs:
        for layer, kind in zip(run.layers["layer"], run.layers["kind"], strict=True):
            kinds.setdefault(str(layer), set()).add(str(kind))
    return {layer for layer, seen in kinds.items() if len(seen) > 1} or set(kinds)


def _attention(tables: ComparisonTables) -> Figure:
    heads = {norm: run.attention() for norm, run in tables.runs.items() if run.has("attention")}
    heads = {norm: table for norm, table in heads.items() if not table.empty}
    if not heads:
        raise NothingToDraw("no attention was read")
    return attention_distance(heads, frame=tables.first)


KINDS: dict[str, Callable[[ComparisonTables], Figure]] = {
    "accuracy_by_norm": _accuracy,
    "comparison_curves": _curves,
    "cost_against_accuracy": _cost,
    "alpha_by_norm": _alpha,
    "s_curves_by_norm": _s_curves,
    "attention_by_norm": _attention,
}

WORDS: Mapping[str, Words] = {
    "accuracy_by_norm": Words(
        "Accuracy by norm",
        "Left: top-1 on the validation images after the last epoch, a dot per seed and a bar at "
        "their mean. Right: the mean of the differences to the reference, seed by seed, with the "
        "95 % interval of Student's t; an interval over the dashed line does not tell the two "
        "apart.",
    ),
    "comparison_curves": Words(
        "Training loss and accuracy",
        "By epoch: a thin line per seed, a thick one for the mean. The training loss is that of "
        "the augmented images.",
    ),
    "cost_against_accuracy": Words(
        "Cost against accuracy",
        "Mean top-1 with a standard deviation over seeds to either side, against the median time "
        "of an epoch of training and of a forward pass in evaluation; up and left is better.",
    ),
    "alpha_by_norm": Words(
        "Learned alphas",
        "Of the first seed. Above: \u03b1 of every layer after each epoch, coloured by depth. "
        "Below: the last \u03b1 against one over the standard deviation of the layer's input; on "
        "the dashed line both are equal.",
    ),
    "s_curves_by_norm": Words(
        "What the layers compute",
        "Input and normalized output of three layers of each final network of the first seed, at "
        "equal steps of depth, with the fitted tanh where a curve is fitted.",
    ),
    "attention_by_norm": Words(
        "Attention distance by norm",
        "How far the heads of each layer look, a dot per head, of the first seed. Dashed: "
        "attention that looks everywhere alike.",
    ),
}

"""The figures of a training, each with its title and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from probe.jobs.drawing.tables import NothingToDraw, evenly
from probe.jobs.reporting.figures import Words
from probe.plots import Frame
from probe.plots import training as plots
from probe.plots.training_alpha import (
    PANELS,
    alpha_and_inverse_std,
    alpha_with_inverse_std,
    final_alpha,
)


@dataclass(frozen=True)
class TrainingTables:
    """The two tables of a training, and what stands over each figure."""

    epochs: pd.DataFrame
    norms: pd.DataFrame
    frame: Frame


def _curves(tables: TrainingTables) -> Figure:
    measured = tables.epochs.drop(columns=["epoch", "step"], errors="ignore")
    if tables.epochs.empty or not measured.notna().any().any():
        raise NothingToDraw("no epoch is finished")
    return plots.training_curves(tables.epochs, frame=tables.frame)


def _alpha(tables: TrainingTables) -> Figure:
    if plots.of_quantity(tables.norms, "alpha").empty:
        raise NothingToDraw("no layer has an alpha of its own")
    return plots.alpha_evolution(tables.norms, frame=tables.frame)


def _both(tables: TrainingTables) -> pd.DataFrame:
    both = alpha_and_inverse_std(tables.norms)
    if both.empty:
        raise NothingToDraw("no layer has an alpha of its own beside the spread of its input")
    return both


def _with_inverse_std(tables: TrainingTables) -> Figure:
    both = _both(tables).sort_values("depth", kind="stable")
    layers = evenly([str(name) for name in both["layer"].unique()], PANELS)
    return alpha_with_inverse_std(tables.norms, layers, frame=tables.frame)


def _final(tables: TrainingTables) -> Figure:
    _both(tables)
    return final_alpha(tables.norms, frame=tables.frame)


def _parameters(tables: TrainingTables) -> Figure:
    if not plots.told_quantities(tables.norms):
        raise NothingToDraw("the normalizers hold no parameters")
    return plots.norm_parameters(tables.norms, frame=tables.frame)


KINDS: dict[str, Callable[[TrainingTables], Figure]] = {
    "training_curves": _curves,
    "alpha_evolution": _alpha,
    "alpha_with_inverse_std": _with_inverse_std,
    "final_alpha": _final,
    "norm_parameters": _parameters,
}

WORDS: Mapping[str, Words] = {
    "training_curves": Words(
        "Loss, accuracy and time",
        "By epoch; epoch 0 is before training. The training loss is that of the augmented images "
        "(mixed and smoothed where the recipe does so), the validation loss plain cross entropy.",
    ),
    "alpha_evolution": Words(
        "Alpha of every layer",
        "The \u03b1 of each DyT or Derf layer after every epoch, coloured by its place in "
        "execution order; names stand at the highest, the lowest and some lines between.",
    ),
    "alpha_with_inverse_std": Words(
        "Alpha beside 1/std over the training",
        "Four layers at equal steps of depth, as figure 8 of DyT: \u03b1, and one over the "
        "standard deviation of the layer's input on the same images after each epoch.",
    ),
    "final_alpha": Words(
        "Learned alpha against 1/std",
        "After the last epoch, one point per layer, as figure 9 of DyT; on the dashed line both "
        "are equal.",
    ),
    "norm_parameters": Words(
        "What the normalizers hold",
        "Their other parameters and the spread of their inputs by epoch, a line per layer, "
        "coloured by depth; of several heads the mean.",
    ),
}

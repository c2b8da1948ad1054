"""What the figures need of a run: each table read once, samples thinned to what a panel shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from probe.errors import UsageError
from probe.layer_names import Patterns, matches, select, split_patterns
from probe.plots import Frame, Shape
from probe.plots.points import thin
from probe.records import Status
from probe.store.run import Run
from probe.wording.evidence import seen, seen_images
from probe.wording.notes import is_random

SELECTED = 4  # as figure 2 of DyT
AT_MOST = 8  # so many layers named by the user are all taken as the selected ones
PANEL_COLUMNS = ("layer", "channel", "stratum", "input", "normalized")  # of samples, by a panel
PANELS = 60  # of a figure or page with a panel for each layer; ResNet-50 has 53, ViT-L 49


class NothingToDraw(Exception):
    """A run has no data for a figure; the text says why."""


class FigureTables:
    """Tables of `run` restricted to `layers` (globs; None: all).

        tables = FigureTables(run, "blocks.*.norm1")
        tables.selected  # names of the four layers that stand for all
        tables.thin(tables.selected)  # layer -> the samples that its panel shows

    Each table is read when it is first asked for, and kept.
    """

    def __init__(
        self, run: Run, layers: Patterns | None = None, shape: Shape | None = None
    ) -> None:
        self.run = run
        self.shape = shape or Shape()
        self._patterns = layers
        self.layers = run.layers if layers is None else _matching(run, layers)
        self.names = [str(name) for name in self.layers["layer"]]
        self._all_selected = layers is not None and len(self.names) <= AT_MOST
        self._thin: dict[str, pd.DataFrame] = {}
        self._full: dict[str, pd.DataFrame] = {}

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        """What was read does not travel to another process."""
        return FigureTables, (self.run, self._patterns, self.shape)

    @cached_property
    def statuses(self) -> dict[str, str]:
        """layer -> status of the capture, for panels without points."""
        return {
            str(name): str(status)
            for name, status in zip(self.layers["layer"], self.layers["status"], strict=True)
        }

    @cached_property
    def frame(self) -> Frame:
        """Model, weights and number of images over each figure; random weights loudly."""
        return frame_of(self.run)

    @cached_property
    def fits(self) -> pd.DataFrame:
        """The fits table; UsageError where it lacks the family to draw."""
        fits = self._mine(self.run.fits())
        fitted = fits.loc[fits["status"] != Status.AFFINE, "family"].unique()
        if len(fitted) and self.shape.family not in fitted:
            raise UsageError(
                f"family {self.shape.family!r} was not fitted in run {self.run.path}; fitted: "
                f"{', '.join(fitted)}"
            )
        return fits

    @cached_property
    def alphas(self) -> pd.DataFrame:
        return self._mine(self.run.alphas())

    @cached_property
    def rows(self) -> pd.DataFrame:
        return self._mine(self.run.rows())

    @cached_property
    def attention(self) -> pd.DataFrame:
        """Distance, entropy and prefix mass of the attention heads, of the layers whose names
        match.
        """
        try:
            heads = self.run.attention()
        except UsageError as reason:
            raise NothingToDraw(str(reason)) from None
        if self._patterns is None:
            return heads
        heads = heads[[matches(name, self._patterns) for name in heads["layer"]]]
        if heads.empty:
            named = ", ".join(split_patterns(self._patterns))
            raise NothingToDraw(f"no attention layer is called {named}")
        return heads

    @cached_property
    def fan(self) -> pd.DataFrame:
        """layer, channel, slope, offset, low, high of the layers that are affine per channel."""
        affine = set(self.layers.loc[self.layers["affine"], "layer"])
        moments = self.run.moments()
        seen = moments["max_input"] >= moments["min_input"]
        lines = moments[moments["layer"].isin(affine) & moments["slope"].notna() & seen]
        lines = lines.rename(columns={"min_input": "low", "max_input": "high"})
        return lines[["layer", "channel", "slope", "offset", "low", "high"]]

    @cached_property
    def drawn(self) -> list[str]:
        """Layers with samples to show: also those that saw infinities, where finite samples are
        left.
        """

        def has_samples(name: str) -> bool:
            status = self.statuses[name]
            return status == Status.CAPTURED or (
                status == Status.NOT_FINITE and not self._one_thin(name).empty
            )

        return [name for name in self.names if has_samples(name)]

    @cached_property
    def selected(self) -> list[str]:
        """Four layers at equal steps of depth, or the few that the user named."""
        if not self.drawn:
            raise NothingToDraw("no layer has samples")
        return self.drawn if self._all_selected else evenly(self.drawn, SELECTED)

    @cached_property
    def panels(self) -> list[str]:
        """The layers with a panel of their own, in execution order: all of up to 60; of more those
        whose curve is established, at equal steps, and of the others as many as there is room for.
        """
        if len(self.names) <= PANELS:
            return self.names
        curved = self.alphas["status"] == Status.CURVED
        return first_of(self.names, set(self.alphas.loc[curved, "layer"]), PANELS)

    @cached_property
    def selected_with_prefix(self) -> list[str]:
        """As `selected`, among the layers that see prefix tokens."""
        prefix = {str(name) for name in self.layers.loc[self.layers["prefix_tokens"] > 0, "layer"]}
        having = [name for name in self.drawn if name in prefix]
        if not having:
            raise NothingToDraw("no layer sees prefix tokens (class, distillation, registers)")
        return having if self._all_selected else evenly(having, SELECTED)

    def thin(self, layers: Sequence[str]) -> dict[str, pd.DataFrame]:
        """layer -> what its panel shows; layers that were never called are left out."""
        parts = {
            name: self._one_thin(name)
            for name in layers
            if self.statuses[name] != Status.NOT_CALLED
        }
        if not parts:
            raise NothingToDraw("no layer has samples")
        return parts

    def full(self, layers: Sequence[str]) -> dict[str, pd.DataFrame]:
        """layer -> every stored element."""
        return {name: self._one_full(name) for name in layers}

    def with_tokens(self) -> dict[str, pd.DataFrame]:
        """Samples of `selected_with_prefix` with the column `tokens`."""
        parts = {}
        for name in self.selected_with_prefix:
            samples = self._one_full(name)
            layer = self.layers[self.layers["layer"] == name].iloc[0]
            prefix = is_prefix(samples["position"].to_numpy(), layer, self._model_prefix)
            parts[name] = samples.assign(tokens=np.where(prefix, "prefix", "patch"))
        return parts

    @property
    def _model_prefix(self) -> int:
        return int((self.run.manifest.get("model") or {}).get("prefix_tokens") or 0)

    def _mine(self, table: pd.DataFrame) -> pd.DataFrame:
        return table[table["layer"].isin(self.names)]

    def _one_full(self, name: str) -> pd.DataFrame:
        if name not in self._full:
            self._full[name] = self.run.samples(name)
        return self._full[name]

    def _one_thin(self, name: str) -> pd.DataFrame:
        if name not in self._thin:
            full = self._full.get(name)
            self._thin[name] = thin(
                full if full is not None else self.run.samples(name, columns=PANEL_COLUMNS)
            )
        return self._thin[name]


def frame_of(run: Run) -> Frame:
    """The heading of a run's figures: model, weights and images."""
    warning = "random weights: nothing was learned" if is_random(run.manifest) else ""
    return Frame(", ".join(part for part in (network(run), images(run)) if part), warning)


def network(run: Run) -> str:
    """The model of a run and its weights."""
    model: dict[str, Any] = run.manifest.get("model") or {}
    name, weights = str(model.get("name", "")), str(model.get("weights", ""))
    said = f"{weights} weights" if weights in ("pretrained", "random") else weights
    return ", ".join(part for part in (name, said) if part)


def images(run: Run) -> str:
    """How many images of how many photographs; empty where none are known."""
    return seen(run.manifest) if seen_images(run.manifest)[0] else ""


def evenly(names: Sequence[str], count: int) -> list[str]:
    """`count` of the names at equal steps, first and last among them."""
    steps = np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int))
    return [names[i] for i in steps]


def first_of(names: Sequence[str], preferred: Collection[str], count: int) -> list[str]:
    """`count` of the names in their order: the preferred ones at equal steps, then the others."""
    first = evenly([name for name in names if name in preferred], count)
    others = evenly([name for name in names if name not in preferred], count - len(first))
    return [name for name in names if name in {*first, *others}]


def is_prefix(position: np.ndarray, layer: Any, model_prefix: int) -> np.ndarray:
    """Whether a position is a prefix token; q/k norms run over (head, token), so there each head
    has its own prefix tokens.
    """
    seen, positions = int(layer["prefix_tokens"]), int(layer["positions"])
    heads = seen // model_prefix if model_prefix and seen % model_prefix == 0 else 1
    tokens = positions // max(heads, 1) or 1
    return (position % tokens) < seen // max(heads, 1)


def _matching(run: Run, patterns: Patterns) -> pd.DataFrame:
    """The rows of run.layers that the patterns name, in execution order. A pattern may name
    attention layers alone.
    """
    heads = run.attention()["layer"].unique() if run.has("attention") else ()
    chosen = select([*run.layers["layer"], *heads], patterns, f"layers of run {run.path}")
    return run.layers[run.layers["layer"].isin(chosen)]

"""Several runs side by side: their key numbers, four layers of each, and their attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from probe import plots
from probe.html import Comparison
from probe.html import Figure as Shown
from probe.jobs.drawing.compare import compare_figure, key_numbers
from probe.jobs.figure_file import pixels
from probe.jobs.page_tables import comparison_table
from probe.jobs.reporting.figures import ATTENTION, Words, shown_figure
from probe.jobs.reporting.run_part import heads_of
from probe.store.run import Run
from probe.wording.attention import local, mean
from probe.wording.notes import is_random

FOUR_LAYERS = Words("Four layers of each run", "At equal steps of depth, a row for each run.")


def comparison(runs: Sequence[Run], titles: Sequence[str]) -> Comparison:
    """What the page of several runs begins with."""
    numbers = [all_numbers(run) for run in runs]
    return Comparison(comparison_table(titles, numbers), tuple(_figures(runs, titles)))


def all_numbers(run: Run) -> dict[str, Any]:
    """Those of `compare`, and what the attention heads do; of a run of attention alone only the
    latter.
    """
    model = run.manifest.get("model") or {}
    named: dict[str, Any] = {
        "model": str(model.get("name", "")),
        "weights": str(model.get("weights", "")),
    }
    numbers = named if run.attention_only else key_numbers(run)
    if heads := heads_of(run):
        numbers |= {
            "heads": len(heads),
            "local_heads": local(heads),
            "mean_attention_distance_px": mean(heads, "distance_px"),
        }
    return numbers


def _figures(runs: Sequence[Run], titles: Sequence[str]) -> Iterator[Shown]:
    heading = ", ".join(titles)
    curves = compare_figure(*runs)
    if curves is not None:
        yield shown_figure(pixels(curves), "comparison-curves", FOUR_LAYERS, heading)
    tables = {
        title: run.attention() for title, run in zip(titles, runs, strict=True) if heads_of(run)
    }
    if len(tables) > 1:
        figure = plots.attention_distance(tables, frame=_frame(runs, titles))
        words = ATTENTION["attention_distance"]
        yield shown_figure(pixels(figure), "comparison-attention", words, heading)


def _frame(runs: Sequence[Run], titles: Sequence[str]) -> plots.Frame:
    """A warning that names the runs of random weights."""
    random = [title for title, run in zip(titles, runs, strict=True) if is_random(run.manifest)]
    return plots.Frame(warning=f"random weights: {', '.join(random)}" if random else "")

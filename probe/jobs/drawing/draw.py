"""Draws the figures of a finished run: reads its tables, evaluates what was fitted, writes
`figures/`. The model is not needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from probe import plots
from probe.curves.families import family_of
from probe.errors import ProbeError, known_names
from probe.jobs.drawing.tables import FigureTables, NothingToDraw
from probe.jobs.figure_file import picture
from probe.jobs.sharing import second_process, shared
from probe.layer_names import Patterns
from probe.plots.alpha import drawable
from probe.plots.families import layer_fits
from probe.records import FIGURE_FORMATS, Progress, silent
from probe.store.outputs import output_folder
from probe.store.results import figures_folder, step_into
from probe.store.run import Run, open_run
from probe.store.schema import FIGURES
from probe.store.sound import are_sound

USUAL = ("png", "svg")
_log = logging.getLogger(__name__)


def plot(
    run: Run | str | Path,
    kinds: Sequence[str] | None = None,
    layers: Patterns | None = None,
    formats: Sequence[str] = USUAL,
    out: str | Path | None = None,
    family: str = "tanh",
    progress: Progress | None = None,
) -> list[Path]:
    """Writes the figures of `run` into `out` (default: its `figures/`) and returns their paths.

    kinds: names of KINDS; None: all that the run has data for (why another was left out is logged).
    layers: globs, several joined by commas or in a list; None: all, and four at equal steps of
    depth where a figure shows a selection. Of more than 60 layers s_curves shows 60: those whose
    curve is established first, spread over depth.
    family: whose curve is drawn.
    progress: called as progress("figures", done, total, name of the next figure).
    Raises UsageError for an unknown name, ProbeError if a figure asked for by name has no data.
    """
    run = open_run(run)
    chosen = (
        list(ATTENTION_KINDS)
        if kinds is None and run.attention_only
        else known_names("figure", kinds, KINDS)
    )
    endings = known_names("format", formats, FIGURE_FORMATS)
    tables = FigureTables(run, layers, plots.Shape(family, family_of(family).value))
    folder = figures_folder(run.path) if out is None else output_folder(out)
    return _write(tables, chosen, folder, endings, progress or silent, must=kinds is not None)


def plot_missing(
    run: Run | str | Path, formats: Sequence[str] = USUAL, progress: Progress | None = None
) -> tuple[list[Path], bool]:
    """Draws what `plot` would draw, but for the figures that are there and sound. Returns the paths
    of all of them, and whether any was drawn.
    """
    run, endings = open_run(run), known_names("format", formats, FIGURE_FORMATS)
    names = ATTENTION_KINDS if run.attention_only else KINDS
    missing = [
        kind
        for kind in names
        if not are_sound(run.path, [f"{FIGURES}/{kind}.{ending}" for ending in endings])
    ]
    tables = FigureTables(run, None, plots.Shape("tanh", family_of("tanh").value))
    folder = figures_folder(run.path)
    drawn = _write(tables, missing, folder, endings, progress or silent, must=False)
    there = [folder / f"{kind}.{end}" for kind in names if kind not in missing for end in endings]
    return [*there, *drawn], bool(drawn)


def _write(
    tables: FigureTables,
    chosen: Sequence[str],
    folder: Path,
    endings: Sequence[str],
    report: Progress,
    must: bool,
) -> list[Path]:
    """must: a figure without data is an error, else it is left out."""
    paths: list[Path] = []

    def progress(done: int) -> None:
        report("figures", done, len(chosen), chosen[done] if done < len(chosen) else "")

    with step_into(folder / "figure.png", [tables.run.path], "give --out DIR") as step:
        with second_process(__name__):
            drawings = shared(partial(_drawn, tables, endings), chosen, progress)
        for kind, drawing in zip(chosen, drawings, strict=True):
            if isinstance(drawing, NothingToDraw):
                if must:
                    raise _no_figure(kind, tables.run, drawing)
                _log.info("figure %s left out: %s", kind, drawing)
                continue
            for ending, data in zip(endings, drawing, strict=True):
                paths.append(step.put(folder / f"{kind}.{ending}", data))
    return paths


def _drawn(tables: FigureTables, endings: Sequence[str], kind: str) -> list[bytes] | NothingToDraw:
    """A figure in each format, or why there is none."""
    try:
        drawing = _figure(kind, tables)
    except NothingToDraw as reason:
        return reason
    return [picture(drawing, ending) for ending in endings]


def _no_figure(kind: str, run: Run, reason: NothingToDraw) -> ProbeError:
    return ProbeError(f"figure {kind} of {run.path} cannot be drawn: {reason}")


def figure(
    run: Run | str | Path,
    kind: str,
    layers: Patterns | None = None,
    family: str = "tanh",
) -> Figure:
    """One figure of `run`, not written anywhere; in a notebook it shows itself. Arguments and
    errors are those of `plot`.
    """
    run = open_run(run)
    [name] = known_names("figure", kind, KINDS)
    try:
        return _figure(
            name, FigureTables(run, layers, plots.Shape(family, family_of(family).value))
        )
    except NothingToDraw as reason:
        raise _no_figure(name, run, reason) from None


def _figure(kind: str, tables: FigureTables) -> Figure:
    if tables.run.attention_only and kind not in ATTENTION_KINDS:
        raise NothingToDraw("the run holds attention distances only, no normalization layer")
    return KINDS[kind](tables)


def _s_curves(tables: FigureTables) -> Figure:
    """Every layer, up to 60 of them; of more a choice, and the heading says of how many."""
    return plots.s_curve_grid(
        tables.thin(tables.panels),
        tables.fits,
        layers=tables.panels,
        fan=tables.fan,
        shape=tables.shape,
        frame=_frame_of_a_choice(tables),
        statuses=tables.statuses,
    )


def _frame_of_a_choice(tables: FigureTables) -> plots.Frame:
    """The heading of a figure that may leave layers out."""
    shown, layers = len(tables.panels), len(tables.names)
    if shown == layers:
        return tables.frame
    _log.info("figure s_curves shows %d of %d layers; --layers chooses which", shown, layers)
    choice = f"{shown} of {layers} layers, established curves first"
    return replace(tables.frame, heading=f"{tables.frame.heading}, {choice}")


def _s_curves_selected(tables: FigureTables) -> Figure:
    """Four layers, as figure 2 of DyT."""
    return plots.s_curve_grid(
        tables.thin(tables.selected),
        tables.fits,
        layers=tables.selected,
        fan=tables.fan,
        shape=tables.shape,
        frame=tables.frame,
    )


def _by_channel(tables: FigureTables) -> Figure:
    return plots.by_channel_grid(tables.full(tables.selected), tables.selected, frame=tables.frame)


def _by_position(tables: FigureTables) -> Figure:
    return plots.by_position_grid(
        tables.full(tables.selected), tables.rows, tables.selected, frame=tables.frame
    )


def _alpha(tables: FigureTables) -> Figure:
    if drawable(tables.alphas).empty:
        raise NothingToDraw("no layer has a slope")
    return plots.alpha_vs_inverse_std(tables.alphas, frame=tables.frame)


def _families(tables: FigureTables) -> Figure:
    if layer_fits(tables.fits).empty:
        raise NothingToDraw(
            "no layer has a fit over all channels (layers that are affine per channel have none)"
        )
    return plots.families_by_depth(tables.fits, shape=tables.shape.family, frame=tables.frame)


def _lines(tables: FigureTables) -> Figure:
    """Slopes and offsets of the layers that are a line per channel."""
    if tables.fan.empty:
        raise NothingToDraw("no layer is affine per channel")
    return plots.lines_by_depth(tables.fan, frame=tables.frame)


def _tokens(tables: FigureTables) -> Figure:
    layers = tables.selected_with_prefix
    return plots.token_grid(
        tables.with_tokens(), tables.fits, layers, frame=tables.frame, shape=tables.shape
    )


def _extremes(tables: FigureTables) -> Figure:
    if tables.alphas["max_abs_input"].isna().all():
        raise NothingToDraw("no layer has samples")
    return plots.extremes_by_depth(tables.alphas, frame=tables.frame)


def _attention_distance(tables: FigureTables) -> Figure:
    """Every head of every layer."""
    return plots.attention_distance(tables.attention, frame=tables.frame)


def _attention_heads(tables: FigureTables) -> Figure:
    """Sorted heads of the first and the last layers."""
    return plots.sorted_heads(tables.attention, frame=tables.frame)


def _attention_mass_entropy(tables: FigureTables) -> Figure:
    return plots.prefix_mass_and_entropy(tables.attention, frame=tables.frame)


def _attention_heatmap(tables: FigureTables) -> Figure:
    return plots.distance_heatmap(tables.attention, frame=tables.frame)


ATTENTION_KINDS: dict[str, Callable[[FigureTables], Figure]] = {
    "attention_distance": _attention_distance,
    "attention_heads": _attention_heads,
    "attention_mass_entropy": _attention_mass_entropy,
    "attention_heatmap": _attention_heatmap,
}
KINDS: dict[str, Callable[[FigureTables], Figure]] = {
    "s_curves": _s_curves,
    "s_curves_selected": _s_curves_selected,
    "by_channel": _by_channel,
    "by_position": _by_position,
    "alpha_vs_inverse_std": _alpha,
    "families": _families,
    "lines": _lines,
    "tokens": _tokens,
    "extremes": _extremes,
    **ATTENTION_KINDS,
}

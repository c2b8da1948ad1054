"""Writes report.html of a finished run, or one page of several: tables, sentences and pictures,
without the model.

Same run, same bytes: nothing is taken from the clock, and the times of the manifest stay in the
manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from probe import plots
from probe.errors import UsageError
from probe.formatting import number, quality, records, share
from probe.html import Comparison, Curve, Finding, Page, RunPart, render
from probe.html import Figure as Shown
from probe.jobs.drawing.compare import compare_figure, key_numbers
from probe.jobs.drawing.tables import FigureTables, frame_of
from probe.jobs.figure_file import picture
from probe.jobs.fitting.fit import ensure_fitted
from probe.jobs.reporting.figures import (
    ATTENTION,
    NORMS,
    Words,
    curve_picture,
    shown_figure,
    whole_figures,
)
from probe.jobs.reporting.run_facts import facts_of, files_of, manifest_text
from probe.jobs.reporting.sentences import attention_findings as attention_sentences
from probe.jobs.reporting.sentences import layer_findings
from probe.jobs.reporting.tables import attention_table, comparison_table, layer_table
from probe.records import Progress, silent
from probe.store.disk import replace_file
from probe.store.run import Run, open_run, run_names
from probe.wording import attention as attention_findings
from probe.wording import layers as findings
from probe.wording.unusual_norms import affine_errors, not_read, unusual

NAME = "report.html"
NAMED = 20  # skipped images and modules named in a note
CURVES_NOTE = (
    "The value before the layer's own affine against its input, one dot per element: pale ones "
    "are a uniform sample, darker ones the "
    "most extreme inputs."
)
MARKS = {
    "curved": "Solid red is the tanh fitted to every element.",
    "linear": "Black is the line where no tanh beats it.",
    "affine": "A layer that is affine per channel is a fan of lines, one per channel, coloured by "
    "their slopes.",
}
DASHED = "Dashed is the tanh that weighs the range of the input evenly, where it bends."
ENLARGE = "Choose a panel to enlarge it."


def report(
    runs: Run | str | Path | Sequence[Run | str | Path],
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Writes `report.html` into each run, or with `out` one page of all of them to that file.
    Returns the paths.

    A run without fits is fitted first. progress: called as progress("report", done, total, what is
    drawn next).
    """
    opened = [open_run(run) for run in ([runs] if isinstance(runs, (Run, str, Path)) else runs)]
    if not opened:
        raise UsageError("no run given; give the folder of at least one finished run")
    if out is None:
        return [write_report(run, progress=progress) for run in opened]
    target = Path(out).expanduser()
    if target.is_dir():
        raise UsageError(f"--out {out} is a folder; give a file, such as {target / NAME}")
    return [replace_file(target, _page(opened, progress or silent).encode())]


def write_report(
    run: Run, figures: bool = True, drawn: Iterable[Path] = (), progress: Progress | None = None
) -> Path:
    """Writes the report into `run`. `figures`: False leaves out all pictures; `drawn`: PNGs that
    were just drawn from its tables.
    """
    known = {path.stem: path for path in drawn if path.suffix == ".png"}
    part = _part(run, "run", _title(run), figures, known, progress or silent)
    return replace_file(run.path / NAME, render(Page(part.title, (part,))).encode())


def _page(runs: Sequence[Run], progress: Progress) -> str:
    """One run as its own page, several with a comparison before them."""
    titles = run_names(runs) if len(runs) > 1 else [_title(runs[0])]
    parts = tuple(
        _part(run, f"run{n + 1}", title, True, {}, progress)
        for n, (run, title) in enumerate(zip(runs, titles, strict=True))
    )
    if len(parts) == 1:
        return render(Page(titles[0], parts))
    return render(Page(", ".join(titles), parts, _comparison(runs, titles)))


def _title(run: Run) -> str:
    return str((run.manifest.get("model") or {}).get("name") or run.path.name)


def _part(
    run: Run, name: str, title: str, figures: bool, drawn: Mapping[str, Path], progress: Progress
) -> RunPart:
    if not run.attention_only:
        ensure_fitted(run, progress)
    tables = FigureTables(run)
    rows = [] if run.attention_only else records(run.alphas())
    record = run.manifest.get("attention")
    heads = _heads(run)
    curves = _curves(tables, name, rows, figures, progress)
    targets = {curve.layer: curve.name for curve in curves}
    computed = (record or {}).get("status") != "none"
    unread = attention_findings.not_read(record) if computed else []
    odd = unusual(affine_errors(run.manifest), not_read(run.manifest))
    notes = [_sentence(line) for line in (*findings.missed(run.manifest, NAMED), *odd, *unread)]
    if not figures:
        notes.append(
            f"This page was made without pictures; `probe-norms report {run.path.name}` makes it "
            "with them."
        )
    return RunPart(
        name,
        title,
        _lead(run, rows, heads),
        facts=facts_of(run),
        warnings=tuple(findings.warnings_of(run.manifest)),
        findings=(
            *(layer_findings(rows) if rows else [_no_layer(run)]),
            *attention_sentences(heads, computed),
        ),
        notes=tuple(notes),
        layers=layer_table(f"{name}-table", rows, targets) if rows else None,
        curves=tuple(curves),
        curves_note=_how_to_read(rows),
        figures=tuple(whole_figures(tables, NORMS, name, drawn)) if figures and rows else (),
        attention=attention_table(f"{name}-heads", heads) if heads else None,
        attention_figures=tuple(whole_figures(tables, ATTENTION, name, drawn))
        if figures and heads
        else (),
        manifest=manifest_text(run.manifest),
        files=files_of(run),
    )


def _heads(run: Run) -> list[dict[str, Any]]:
    """The rows of the attention table; none where the run has no table."""
    return records(run.attention()) if run.has("attention") else []


def _no_layer(run: Run) -> Finding:
    only = (
        "This run looked at attention only."
        if run.attention_only
        else "The model has no normalization layer that was chosen."
    )
    return Finding("Shape", only)


def _sentence(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}."


def _lead(run: Run, rows: Sequence[findings.Row], heads: Sequence[findings.Row]) -> str:
    """Weights and number of images, then what was looked at."""
    heading = frame_of(run).heading.removeprefix(_title(run)).removeprefix(", ")
    seen = [findings.kinds(rows)] if rows else []
    seen += [f"{len(heads)} attention heads"] if heads else []
    return ". ".join(part for part in (heading.capitalize(), "; ".join(seen)) if part) + "."


def _how_to_read(rows: Sequence[findings.Row]) -> str:
    """What the marks in the panels mean; only of those that are there."""
    statuses = {str(row["status"]) for row in rows}
    marks = [text for status, text in MARKS.items() if status in statuses] + [DASHED] * bool(
        statuses & {"curved", "linear"}
    )
    return " ".join([CURVES_NOTE, *marks, ENLARGE])


def _curves(
    tables: FigureTables, name: str, rows: Sequence[findings.Row], figures: bool, progress: Progress
) -> list[Curve]:
    """One card per layer, in execution order; none without figures."""
    if not figures:
        return []
    curves = []
    for done, row in enumerate(rows):
        layer = str(row["layer"])
        progress("report", done, len(rows), layer)
        shown = curve_picture(tables, layer)
        curves.append(
            Curve(f"{name}-curve-{row['depth']}", layer, str(row["status"]), _numbers(row), shown)
        )
    if rows:
        progress("report", len(rows), len(rows), "")
    return curves


def _numbers(row: findings.Row) -> tuple[tuple[str, str], ...]:
    """What stands below a curve; only what the layer has."""
    beyond = row.get("beyond_linear")
    found = {
        "\u03b1": findings.interval(row),
        "slopes": findings.slopes(row),
        "slope" if row.get("slope_min") is None else "median": number(findings.central_slope(row)),
        "R\u00b2": quality(findings.shown_r2(row)) if row["status"] in findings.SHAPED else "-",
        "R\u00b2 line": quality(row.get("linear_r2")),
        "ceiling": quality(row.get("r2_ceiling")),
        "best": "-" if row["status"] == "affine" else findings.best(row),
        "beyond": "-" if beyond is None else f"{share(beyond)} %",
        "max |x|": number(row.get("max_abs_input")),
    }
    return tuple((name, value) for name, value in found.items() if value != "-")


def _comparison(runs: Sequence[Run], titles: Sequence[str]) -> Comparison:
    numbers = [_key_numbers(run) for run in runs]
    return Comparison(comparison_table(titles, numbers), tuple(_side_by_side(runs, titles)))


def _key_numbers(run: Run) -> dict[str, Any]:
    """Those of `compare`, and what the attention heads do; of a run of attention alone only the
    latter.
    """
    model = run.manifest.get("model") or {}
    kept: dict[str, Any] = {
        "model": str(model.get("name", "")),
        "weights": str(model.get("weights", "")),
    }
    kept = kept if run.attention_only else key_numbers(run)
    if heads := _heads(run):
        pixels = attention_findings.mean(heads, "distance_px")
        kept |= {
            "heads": len(heads),
            "local_heads": attention_findings.local(heads),
            "mean_attention_distance_px": pixels,
        }
    return kept


def _side_by_side(runs: Sequence[Run], titles: Sequence[str]) -> Iterable[Shown]:
    """Four layers of each run, and the attention distance of those that have it."""
    heading = ", ".join(titles)
    curves = compare_figure(*runs)
    if curves is not None:
        words = Words("Four layers of each run", "At equal steps of depth, a row for each run.")
        yield shown_figure(picture(curves), "comparison-curves", words, heading)
    tables = {
        title: run.attention() for title, run in zip(titles, runs, strict=True) if _heads(run)
    }
    if len(tables) > 1:
        warned = [
            title
            for title, run in zip(titles, runs, strict=True)
            if findings.warnings_of(run.manifest)
        ]
        frame = plots.Frame(warning=f"random weights: {', '.join(warned)}" if warned else "")
        yield shown_figure(
            picture(plots.attention_distance(tables, frame=frame)),
            "comparison-attention",
            ATTENTION["attention_distance"],
            heading,
        )


__all__ = ["report", "write_report"]

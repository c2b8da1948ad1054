"""The result of a run: a document for machines (--json), or one row per layer and what to know
about them in a few lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from probe.cli.terminal import print_json, print_table
from probe.cli.views import attention as attention_view
from probe.cli.views.grid import Row, columns_of
from probe.errors import shown
from probe.formatting import records
from probe.records import FIGURE_FORMATS, Status
from probe.wording.columns import ALPHAS
from probe.wording.evidence import seen, seen_images, undecided_layers
from probe.wording.layers import counts, massive, where_s
from probe.wording.notes import functional, missed, skipped, warnings_of
from probe.wording.unusual_norms import affine_errors, not_read, unusual, with_errors

SHOWN = 5  # skipped images or modules named below the table; --json and the manifest have them all


def show_run(run: Any, as_json: bool) -> None:
    """The result of a run that has been fitted."""
    rows = rows_of(run)
    if as_json:
        drawn = [shown(path) for path in figures(run)]
        print_json(document(run, rows, figures=drawn, report=report_of(run)))
        return
    lines = [
        f"{seen(run.manifest)}; {counts(rows)}",
        *notes(rows),
        *attention_view.of_run(run),
        *places(run),
        *warned(run.manifest, rows),
    ]
    print_table(columns_of(ALPHAS, rows), rows, lines, styles(rows), also="alpha.csv")


def show_fits(run: Any, fits: Any, as_json: bool) -> None:
    """The result of a new fit: the same table; the JSON form has every family, scope and weighting
    beside it.
    """
    if as_json:
        print_json(document(run, rows_of(run), fits=records(fits)))
    else:
        show_run(run, False)


def rows_of(run: Any) -> list[dict[str, Any]]:
    """The rows of the table: one per layer, with the error of its output where it has one."""
    return with_errors(records(run.alphas()), affine_errors(run.manifest))


def document(run: Any, rows: Sequence[Row], **more: Any) -> dict[str, Any]:
    """The JSON form; `layers` are the rows of the table with every column."""
    manifest = run.manifest
    images, sources = seen_images(manifest)
    return {
        "run": shown(run.path),
        "model": manifest.get("model"),
        "images": images,
        "sources": sources,
        "layers": list(rows),
        "skipped_images": skipped(manifest),
        "not_captured": functional(manifest),
        "not_read": not_read(manifest),
        "attention": attention_view.document(run),
        "warnings": warnings_of(manifest),
        **more,
    }


def notes(rows: Sequence[Row]) -> Iterator[str]:
    """Where the S is, what is open, and what asks for attention."""
    yield where_s(rows)
    if still_open := undecided_layers(rows):
        yield still_open
    if named := massive(rows):
        yield f"massive activations: {named}"


def places(run: Any) -> Iterator[str]:
    """Where the run, its figures and its page are."""
    yield f"run: {shown(run.path)}"
    if drawn := figures(run):
        endings = ", ".join(sorted({path.suffix[1:] for path in drawn}))
        count, folder = len({path.stem for path in drawn}), shown(drawn[0].parent)
        yield f"figures: {count} ({endings}) in {folder}"
    if page := report_of(run):
        yield f"report: {page}"


def figures(run: Any) -> list[Path]:
    paths = (Path(run.path) / "figures").glob("*")
    return sorted(path for path in paths if path.suffix[1:] in FIGURE_FORMATS)


def report_of(run: Any) -> str | None:
    """Path of the page that shows the run, where it was written."""
    path = Path(run.path) / "report.html"
    return shown(path) if path.exists() else None


def warned(manifest: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[str]:
    """Skipped images, norms that were not captured or are unusual, random weights."""
    yield from missed(manifest, SHOWN)
    yield from unusual(rows, not_read(manifest), SHOWN)
    yield from (f"WARNING: {line}" for line in warnings_of(manifest))


def styles(rows: Sequence[Row]) -> list[str]:
    """How the row of each layer looks."""
    return [_STYLES.get(str(row["status"]), "") for row in rows]


def _style(status: Status) -> str:
    return "bold" if status.shaped else "red" if status.failed else "dim" if status.empty else ""


_STYLES = {status.value: _style(status) for status in Status}
